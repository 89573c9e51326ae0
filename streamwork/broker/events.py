"""Events of a namespace, page by page: its own stream of rare ones, merged with the journals of its queues by time.

What came of an attempt is in the journal of its queue already, so an event of it costs no further write: whoever reads
events reads the journals. A cursor has the place in each of these streams, so nothing is lost where their clocks or
their lengths differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from streamwork.broker.inspect import order
from streamwork.broker.stats import queue_names
from streamwork.broker.steps import Steps
from streamwork.broker.trimmed import JOURNAL, Note, Place, read_notes
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ConfigError, DecodeError
from streamwork.ids import random_id
from streamwork.model.event import TASK_TYPES, Event, EventGap
from streamwork.store.commands import Command, plain
from streamwork.store.keys import QueueKeys, events, events_trimmed
from streamwork.store.telling import announce
from streamwork.wire.event import decode_event, encode_event
from streamwork.wire.message import decode_journal

# Rows of each stream in one read.
PAGE = 500
# The longest wait for what comes next; a stop is heard in between.
BELL_MS = 2_000
_CURSOR = re.compile(r"[^:,]*:\d{1,20}-\d{1,20}")

Found = list[Event | EventGap]


def event(
    namespace: str, type_: str, *, queue: str = "", worker: str = "", detail: str = "", **facts: Any
) -> Command[int]:
    """Return the command that tells one event now."""
    now_ms = SYSTEM_CLOCK.now_ms()
    return announce(namespace, [(random_id(), encode_event(type_, now_ms, queue, worker, detail, facts))], now_ms)


class EventQuery(NamedTuple):
    """What is asked for.

    Attributes:
        since_ms: From when on; None = since ever, or from now on where it is followed.
        since: Behind this cursor, by stream; None = as `since_ms` says.
        types: Globs of types; empty = all.
        queues: Only of these; empty = of all and of none.
        is_followed: Goes on with what comes.
    """

    since_ms: int | None = None
    since: dict[str, bytes] | None = None
    types: tuple[str, ...] = ()
    queues: frozenset[str] = frozenset()
    is_followed: bool = False

    def takes(self, type_: str, queue: str) -> bool:
        """Return whether an event fits."""
        return (not self.queues or queue in self.queues) and (
            not self.types or any(fnmatchcase(type_, glob) for glob in self.types)
        )


def read_cursor(text: str) -> dict[str, bytes]:
    """Return the places in a cursor by stream, ``""`` = the namespace's own; raises ConfigError."""
    parts = text.split(",")
    if not all(_CURSOR.fullmatch(part) for part in parts):
        raise ConfigError(f"since={text!r}: give the cursor of an event, a datetime, or how long ago")
    return {stream: place.encode() for stream, _, place in (part.partition(":") for part in parts)}


class EventReading:
    """One way through the events of a namespace.

    Args:
        namespace: The app's.
        known: Queues beside those that anything was sent to.
        query: What is asked for.

    Attributes:
        is_at_end: Nothing more was there at the last page.
        is_over: Nothing more will come.
    """

    def __init__(self, namespace: str, known: Sequence[str], query: EventQuery) -> None:
        self.is_at_end = self.is_over = False
        self._namespace, self._known, self._query = namespace, known, query
        self._cursors: dict[str, bytes] = dict(query.since or {})
        self._told: dict[str, Place] = {}
        # What nobody has read yet is all new where reading begins now, or goes on behind a cursor.
        is_new = query.since is not None or (query.is_followed and query.since_ms is None)
        since_ms = 0 if is_new else query.since_ms or 0
        # Reading goes on behind a cursor, and what came at the instant itself is asked for.
        self._first = b"%d-%d" % (since_ms - 1, 2**64 - 1) if since_ms else b"0-0"
        self._has_begun = query.since is not None or not is_new

    def page(self) -> Steps[Found]:
        """Read the next page, which may have nothing that fits; may be asked again after a failure."""
        streams = yield from self._streams()
        if not self._has_begun:
            newest = yield [plain("XREVRANGE", self._stream(name), "+", "-", "COUNT", 1) for name in streams]
            self._cursors = {name: rows[0][0] if rows else b"0-0" for name, rows in zip(streams, newest, strict=True)}
            self._has_begun = True
        # In this order: what is trimmed in between was read, and is no gap.
        answers = yield [
            *(
                plain("XRANGE", self._stream(name), b"(" + self._cursors.get(name, b"0-0"), "+", "COUNT", PAGE)
                for name in streams
            ),
            *(plain("HGETALL", self._notes_key(name)) for name in streams),
        ]
        rows, notes = (
            dict(zip(streams, answers, strict=False)),
            dict(zip(streams, answers[len(streams) :], strict=True)),
        )
        found: Found = [gap for name in streams for gap in self._gaps(name, rows[name], read_notes(notes[name]))]
        full = [order(each[-1][0]) for each in rows.values() if len(each) == PAGE]
        # Behind the first stream that has more, the order is not known yet.
        end = min(full) if full else None
        merged = sorted((order(row[0]), name, row) for name in streams for row in rows[name])
        for place, name, (entry, fields) in merged:
            if end is not None and place > end:
                break
            self._cursors[name] = entry
            made = self._made(name, fields)
            if made is not None:
                found.append(made)
        self.is_at_end = not full
        self.is_over = self.is_at_end and not self._query.is_followed
        return found

    def bell(self) -> Command[Any]:
        """Return the command that waits until something more is there, `BELL_MS` at most."""
        # All streams of one server; a queue that is new is found after the wait.
        names = sorted(self._cursors) or [""]
        places = [self._cursors.get(name, b"0") for name in names]
        return plain("XREAD", "COUNT", 1, "BLOCK", BELL_MS, "STREAMS", *map(self._stream, names), *places)

    def _streams(self) -> Steps[list[str]]:
        query = self._query
        has_tasks = not query.types or any(fnmatchcase(type_, glob) for type_ in TASK_TYPES for glob in query.types)
        names = (yield from queue_names(self._namespace, self._known)) if has_tasks else []
        streams = ["", *(name for name in names if not query.queues or name in query.queues)]
        for name in streams if self._has_begun else ():
            self._cursors.setdefault(name, self._first)
        return streams

    def _stream(self, name: str) -> str:
        return QueueKeys(self._namespace, name).journal if name else events(self._namespace)

    def _notes_key(self, name: str) -> str:
        return QueueKeys(self._namespace, name).trimmed if name else events_trimmed(self._namespace)

    def _gaps(self, name: str, rows: Sequence[Any], notes: dict[str, Note]) -> Found:
        note, stands = notes.get(JOURNAL if name else "events"), order(self._cursors.get(name, b"0-0"))
        is_asked = self._query.since_ms is not None or self._query.since is not None or self._query.is_followed
        if note is None or not is_asked or note.place <= max(stands, self._told.get(name, (0, 0))):
            return []
        self._told[name] = note.place
        return [EventGap(
            queue=name, since_ms=stands[0], until_ms=note.place[0], trimmed_at_ms=note.at_ms, why=note.why
        )]  # fmt: skip

    def _made(self, name: str, fields: Sequence[bytes]) -> Event | None:
        try:
            if not name:
                told = decode_event(fields[1])
                if not self._query.takes(told.type, told.queue):
                    return None
                return Event(
                    cursor=self._cursor, type=told.type, at_ms=told.at_ms, queue=told.queue, worker=told.worker,
                    detail=told.detail, facts=told.facts,
                )  # fmt: skip
            record = decode_journal(fields[1])
        except (DecodeError, IndexError):
            return None  # written by another version or a stranger; it must not hide the rest
        if not self._query.takes(f"task.{record.state}", name):
            return None
        facts = {"attempt": record.attempt, "round": record.round, "lane": record.lane}
        return Event(
            cursor=self._cursor, type=f"task.{record.state}", at_ms=record.ended_at_ms, queue=name, id=record.id,
            task=record.task, worker=record.consumer, detail=record.detail, facts=facts,
        )  # fmt: skip

    @property
    def _cursor(self) -> str:
        return ",".join(f"{name}:{place.decode()}" for name, place in sorted(self._cursors.items()))
