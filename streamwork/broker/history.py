"""The history of one queue, page by page: journal records that fit a question, with the arguments of their entries.

A page costs one XRANGE from a time or a cursor on, so the length of the journal does not matter; nothing is held
between pages but the cursor. What the maintainer trimmed is noted in ``trimmed``, and told as a gap.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from streamwork.broker.bodies import MOST_BYTES, read_bodies, said
from streamwork.broker.inspect import order
from streamwork.broker.lookup import BEFORE_MS
from streamwork.broker.steps import Steps
from streamwork.broker.trimmed import JOURNAL, Note, Place, arguments_gap, attempts_gap, read_notes, shown
from streamwork.errors import DecodeError, HistoryTrimmed, QueueNotFound
from streamwork.ids import task_id_at_ms
from streamwork.model.history import HistoryGap, HistoryRecord
from streamwork.model.lane import lane_tags
from streamwork.model.where import Where, named
from streamwork.store.commands import Command, plain
from streamwork.store.keys import QueueKeys, queues
from streamwork.wire.message import JournalRecord, decode_journal

# Rows of one read: 100 KB, a millisecond of Redis, and few enough that a first screen is there at once.
PAGE = 500
# And of the first one where messages come along.
_FIRST = 20
# The longest wait for what comes next; a stop is heard in between.
BELL_MS = 2_000

Found = list[HistoryRecord | HistoryGap]


class Query(NamedTuple):
    """What is asked for; everything has to fit.

    Attributes:
        since_ms, until_ms: When the attempt ended, both included; None = since ever, until now.
        task: Glob of task names; one without a dot fits the last part of a name, too. Empty = all.
        states: How it ended; empty = all.
        tags: Among those of its lane.
        id: Of one task message; empty = all.
        where: Holds for its arguments.
        limit: Records at most; None = all.
        after: Goes on behind this cursor; empty = from the beginning.
        is_reversed: Newest first.
        is_followed: Goes on with what comes, and begins there where `since_ms` is None.
        is_imported: Of what was imported from files, instead of what happened here.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    task: str = ""
    states: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    id: str = ""
    where: Where | None = None
    limit: int | None = None
    after: str = ""
    is_reversed: bool = False
    is_followed: bool = False
    is_imported: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it takes every record, so that no more need be read than are wanted."""
        return not (self.task or self.states or self.tags or self.id or self.where)

    def takes(self, record: JournalRecord) -> bool:
        """Return whether a record fits, its arguments apart."""
        return (
            (not self.id or record.id == self.id)
            and (not self.states or record.state in self.states)
            and (not self.task or is_named(record.task, self.task))
            and (not self.tags or self.tags <= lane_tags(record.lane))
        )


def is_named(task: str, glob: str) -> bool:
    """Return whether a task's name fits a glob: all of it, or its last part where the glob has no dot."""
    return fnmatchcase(task, glob) or ("." not in glob and fnmatchcase(task.rpartition(".")[2], glob))


def check_queue(keys: QueueKeys, known: Iterable[str]) -> Steps[None]:
    """Raise QueueNotFound, naming the nearest, where nothing was ever sent to or read from a queue."""
    if keys.queue in known:
        return
    is_there, streams, names = yield [
        plain("SISMEMBER", queues(keys.namespace), keys.queue),
        plain("EXISTS", keys.lanes, keys.journal, keys.imported), plain("SMEMBERS", queues(keys.namespace)),
    ]  # fmt: skip
    if not (is_there or streams):
        there = sorted({*(name.decode() for name in names), *known})
        close = difflib.get_close_matches(keys.queue, there, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(there) or 'none'}"
        raise QueueNotFound(f"no queue {keys.queue!r} in {keys.namespace!r}: {hint}")


class Reading:
    """One way through a queue's history; what it found is not kept.

    Args:
        keys: The queue.
        query: What is asked for.
        names: Tells the names of a task's positional arguments, for `Query.where`.

    Attributes:
        is_at_end: Nothing more was there at the last page.
        is_over: Nothing more will come.
        is_followed: As the query says.
        keys: Of the queue.
    """

    def __init__(self, keys: QueueKeys, query: Query, names: Callable[[str], Sequence[str]] = lambda _task: ()) -> None:
        self.is_at_end = self.is_over = False
        self.is_followed = query.is_followed
        self.keys, self._query, self._names = keys, query, names
        self._since_ms = query.since_ms
        made_at_ms = task_id_at_ms(query.id) if query.id else None
        if made_at_ms is not None:  # it cannot have ended before it was made
            self._since_ms = max(self._since_ms or 0, made_at_ms - BEFORE_MS)
        self._cursor: bytes | None = query.after.encode() or None
        self._left = query.limit
        # Imported records have their messages beside them, and one of those may have a megabyte.
        self._room = _FIRST if query.is_imported else PAGE
        self._has_found = False
        # Up to where gaps were told, and the lanes of which one was.
        self._told: Place = (0, 0)
        self._told_lanes: frozenset[str] = frozenset()

    def page(self) -> Steps[Found]:
        """Read the next page, which may have nothing that fits; may be asked again after a failure."""
        query = self._query
        if self._cursor is None and self.is_followed and self._since_ms is None:
            (newest,) = yield [plain("XREVRANGE", self.keys.journal, "+", "-", "COUNT", 1)]
            self._cursor = newest[0][0] if newest else b"0-0"
        count = PAGE if self._left is None or not query.is_open else min(PAGE, self._left)
        count = min(count, self._room)
        # In this order: what is trimmed in between was read, and is no gap.
        rows, trimmed = yield [self._range(count), plain("HGETALL", self.keys.trimmed)]
        notes: dict[str, Note] = {} if query.is_imported else read_notes(trimmed)
        wanted = [(cursor, record, body) for cursor, record, body in self._decoded(rows) if query.takes(record)]
        bodies: Sequence[bytes | None] = [body for *_, body in wanted]
        if query.is_imported:
            self._room = max(1, min(PAGE, MOST_BYTES * len(rows) // (4 * _size(rows) + 1)))
        else:
            bodies = yield from read_bodies(self.keys, [record for _, record, _ in wanted])
        is_whole = len(bodies) == len(wanted)  # else the rest is for the next page
        records, lanes = self._records(wanted, bodies)
        self.is_at_end = len(rows) < count and is_whole
        gap = self._gap(rows, notes.get(JOURNAL))
        gaps = {lane: arguments_gap(record, notes) for lane, record in lanes.items()}
        if gap is not None:
            self._told = notes[JOURNAL].place
        self._told_lanes |= gaps.keys()
        self._cursor = (rows[-1][0] if rows else self._cursor) if is_whole else wanted[len(bodies) - 1][0]
        self._left = None if self._left is None else self._left - len(records)
        self._has_found = self._has_found or bool(records)
        self.is_over = self._left == 0 or (self.is_at_end and not self.is_followed)
        if self.is_over and not self._has_found:
            self._refuse_trimmed(notes.get(JOURNAL))
        return _in_order(records, gap, gaps, is_reversed=query.is_reversed)

    def bell(self) -> Command[Any]:
        """Return the command that waits until something more is there, `BELL_MS` at most."""
        cursor = self._cursor or str(self._since_ms or 0)
        return plain("XREAD", "COUNT", 1, "BLOCK", BELL_MS, "STREAMS", self.keys.journal, cursor)

    def _range(self, count: int) -> Command[Any]:
        query, cursor = self._query, self._cursor
        behind = None if cursor is None else "(" + cursor.decode()
        oldest, newest = str(self._since_ms or "-"), "+" if query.until_ms is None else str(query.until_ms)
        stream = self.keys.imported if query.is_imported else self.keys.journal
        if query.is_reversed:
            return plain("XREVRANGE", stream, behind or newest, oldest, "COUNT", count)
        return plain("XRANGE", stream, behind or oldest, newest, "COUNT", count)

    def _decoded(self, rows: Sequence[Any]) -> list[tuple[bytes, JournalRecord, bytes | None]]:
        needle, found = self._query.id.encode(), []
        for cursor, fields in rows:
            if needle not in fields[1]:
                continue  # twenty times faster than decoding
            try:
                found.append((cursor, decode_journal(fields[1]), fields[3] or None if len(fields) > 2 else None))
            except DecodeError:
                continue  # written by another version or a stranger; it must not hide the rest
        return found

    def _records(
        self, wanted: Sequence[tuple[bytes, JournalRecord, bytes | None]], bodies: Sequence[bytes | None]
    ) -> tuple[list[HistoryRecord], dict[str, HistoryRecord]]:
        """Return the records that fit in all, and by lane the first one whose entry is gone."""
        found: list[HistoryRecord] = []
        without: dict[str, HistoryRecord] = {}
        where = self._query.where
        for (cursor, record, _), body in zip(wanted, bodies, strict=False):
            if len(found) == self._left:
                break
            made = _record(self.keys.queue, cursor.decode(), record, body)
            if body is None and made.enqueued_at_ms is not None and made.lane not in self._told_lanes:
                without.setdefault(made.lane, made)
            if where is None or (
                made.args is not None and where.fits(named(made.args, made.kwargs, self._names(made.task)))
            ):
                found.append(made)
        return found, without

    def _gap(self, rows: Sequence[Any], note: Note | None) -> HistoryGap | None:
        """Return what was trimmed between where this stands and what it has read; nobody asked for what is before."""
        query = self._query
        cursor = None if query.is_reversed else self._cursor
        if note is None or (self._since_ms is None and cursor is None):
            return None
        stands = (self._since_ms or 0, 0) if cursor is None else order(cursor)
        is_met = self.is_at_end if query.is_reversed else not rows or order(rows[0][0]) >= note.place
        if not is_met or note.place <= max(stands, self._told):
            return None
        return attempts_gap(self.keys.queue, note, stands, query.until_ms)

    def _refuse_trimmed(self, note: Note | None) -> None:
        task_id = self._query.id
        made_at_ms = task_id_at_ms(task_id) if task_id else None
        if made_at_ms is not None and note is not None and made_at_ms < note.place[0]:
            raise HistoryTrimmed(
                f"nothing is kept of task message {task_id} in queue {self.keys.queue!r}: it was made at "
                f"{shown(made_at_ms)}, and history up to {shown(note.place[0])} went at {shown(note.at_ms)} "
                f"({note.why})", task_id, note.at_ms,
            )  # fmt: skip


def _size(rows: Sequence[Any]) -> int:
    return sum(len(field) for _, fields in rows for field in fields)


def _record(queue: str, cursor: str, record: JournalRecord, body: bytes | None) -> HistoryRecord:
    asked, entry = said(body) if body is not None else None, record.entry.decode(errors="replace")
    enqueued_ms = entry.partition("-")[0]
    return HistoryRecord(
        cursor=cursor, queue=queue, id=record.id, task=record.task, state=record.state, attempt=record.attempt,
        crashes=record.crashes, lane=record.lane, tags=tuple(sorted(lane_tags(record.lane))), entry=entry,
        worker=record.consumer, enqueued_at_ms=int(enqueued_ms) if enqueued_ms.isdecimal() else None,
        started_at_ms=record.started_at_ms or None, ended_at_ms=record.ended_at_ms, detail=record.detail,
        error_type=record.error_type, error_digest=record.digest, result_bytes=record.result_bytes,
        parent=record.parent, trace_id=record.trace_id, round=record.round, replay_of=asked.replay_of if asked else "",
        args=asked.args if asked else None, kwargs=asked.kwargs if asked else {}, body=body,
    )  # fmt: skip


def _in_order(
    records: Sequence[HistoryRecord], gap: HistoryGap | None, gaps: Mapping[str, HistoryGap], *, is_reversed: bool
) -> Found:
    found: Found = [gap] if gap is not None and not is_reversed else []
    # A reader is told of what is missing before it meets it.
    found += [*gaps.values(), *records]
    return [*found, gap] if gap is not None and is_reversed else found
