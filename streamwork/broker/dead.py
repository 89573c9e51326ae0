"""The dead letters of one queue: page by page, and what is done to one: retry, edit, purge.

Whatever is done to a letter holds only for the letter that was seen: the scripts compare its hash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from streamwork.broker.bodies import MOST_BYTES, said
from streamwork.broker.history import is_named
from streamwork.broker.steps import Steps
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import DecodeError
from streamwork.model.dead import DeadRecord
from streamwork.model.history import EDITED, PURGED, REQUEUED
from streamwork.model.lane import is_lane, lane_tags
from streamwork.model.where import Where, named
from streamwork.store.burying import dead_edit, dead_purge, dead_retry
from streamwork.store.commands import Command, plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import (
    FIRST_ATTEMPT,
    WIRE_VERSION,
    Attempt,
    DeadLetter,
    Failure,
    JournalRecord,
    decode_attempt,
    decode_dead_letter,
    decode_message,
    encode_attempt,
    encode_record,
    remains,
)
from streamwork.wire.origin import origin_of

# Letters of one read at most.
PAGE = 200


class DeadQuery(NamedTuple):
    """What is asked for; everything has to fit.

    Attributes:
        since_ms, until_ms: When it died, both included; None = since ever, until now.
        task: Glob of task names; one without a dot fits the last part of a name, too. Empty = all.
        reasons: Why it is dead; empty = whatever.
        tags: Among those of its lane.
        ids: Of these task messages only; empty = all.
        where: Holds for its arguments.
        limit: Letters at most; None = all.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    task: str = ""
    reasons: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    ids: tuple[str, ...] = ()
    where: Where | None = None
    limit: int | None = None

    def takes(self, record: DeadRecord) -> bool:
        """Return whether a letter fits, its arguments apart."""
        return (
            (self.since_ms is None or record.died_at_ms >= self.since_ms)
            and (self.until_ms is None or record.died_at_ms <= self.until_ms)
            and (not self.reasons or record.reason in self.reasons)
            and (not self.task or is_named(record.task, self.task))
            and (not self.tags or self.tags <= frozenset(record.tags))
        )


class DeadReading:
    """One way through the dead letters of a queue, oldest first; what dies meanwhile is not met.

    Args:
        keys: The queue.
        query: What is asked for.
        names: Tells the names of a task's positional arguments, for `DeadQuery.where`.

    Attributes:
        is_over: Nothing more will come.
        keys: Of the queue.
    """

    def __init__(
        self, keys: QueueKeys, query: DeadQuery, names: Callable[[str], Sequence[str]] = lambda _task: ()
    ) -> None:
        self.is_over = False
        self.keys, self._query, self._names = keys, query, names
        self._left = query.limit
        # Behind which score and member this goes on; ids and sizes that were read ahead; how many of one score were
        # passed over; up to which score it goes.
        self._cursor: tuple[float, bytes] | None = None
        self._ahead: list[tuple[bytes, int]] = []
        self._passed = 0
        self._until: float | None = None
        self._is_read = False

    def page(self) -> Steps[list[DeadRecord]]:
        """Read the next page, which may have nothing that fits; may be asked again after a failure."""
        key, queue = self.keys.dead_body, self.keys.queue
        if not self._ahead:
            yield from self._look_ahead()
        count, size = 0, 0
        while count < len(self._ahead) and (not count or size + self._ahead[count][1] <= MOST_BYTES):
            size, count = size + self._ahead[count][1], count + 1
        ids = [task_id for task_id, _ in self._ahead[:count]]
        letters = (yield [plain("HMGET", key, *ids)])[0] if ids else []
        pairs = [(name.decode(errors="replace"), letter) for name, letter in zip(ids, letters, strict=True) if letter]
        found = [read_letter(queue, name, letter) for name, letter in pairs]
        fits = [record for record in found if self._fits(record)][: self._left]
        self._ahead = self._ahead[count:]
        self._left = None if self._left is None else self._left - len(fits)
        self.is_over = self._left == 0 or (self._is_read and not self._ahead)
        return fits

    def _look_ahead(self) -> Steps[None]:
        if self._query.ids:
            ids, cursor, passed, is_read = [one.encode() for one in self._query.ids], None, 0, True
        else:
            if self._until is None:
                (newest,) = yield [plain("ZREVRANGE", self.keys.dead, 0, 0, "WITHSCORES")]
                until_ms = self._query.until_ms
                self._until = min(float(newest[1]) if newest else -1.0, math.inf if until_ms is None else until_ms)
            rows = yield from self._rows()
            new = [row for row in rows if (self._cursor is None or row > self._cursor) and row[0] <= self._until]
            # Those of the same score that come before the last one, which is gone itself, are passed over.
            passed, cursor = 0 if new else self._passed + len(rows), new[-1] if new else self._cursor
            ids, is_read = [member for _, member in new], len(rows) < PAGE or rows[-1][0] > self._until
        # Asked for before the letters: each may have a megabyte.
        sizes = (yield [plain("HSTRLEN", self.keys.dead_body, task_id) for task_id in ids]) if ids else []
        self._ahead = list(zip(ids, sizes, strict=True))
        self._cursor, self._passed, self._is_read = cursor, passed, is_read

    def _rows(self) -> Steps[list[tuple[float, bytes]]]:
        """Read the next scores and ids: by the place of the last one, or where that is gone by its score."""
        key, cursor = self.keys.dead, self._cursor
        since = "-inf" if self._query.since_ms is None else str(self._query.since_ms)
        rank = None
        if cursor is not None:
            rank, score = yield [plain("ZRANK", key, cursor[1]), plain("ZSCORE", key, cursor[1])]
            rank, since = rank if score is not None and float(score) == cursor[0] else None, repr(cursor[0])
        if rank is not None:
            command = plain("ZRANGE", key, rank + 1, rank + PAGE, "WITHSCORES")
        else:
            command = plain("ZRANGEBYSCORE", key, since, "+inf", "WITHSCORES", "LIMIT", self._passed, PAGE)
        (flat,) = yield [command]
        return [(float(score), member) for member, score in zip(flat[::2], flat[1::2], strict=True)]

    def _fits(self, record: DeadRecord) -> bool:
        where = self._query.where
        return self._query.takes(record) and (
            where is None
            or (record.args is not None and where.fits(named(record.args, record.kwargs, self._names(record.task))))
        )


def read_letter(queue: str, task_id: str, letter: bytes) -> DeadRecord:
    """Return what a stored dead letter tells; next to nothing where it is of another version, or a stranger's."""
    try:
        found = decode_dead_letter(letter)
    except DecodeError as error:
        failure = Failure("DecodeError", f"the dead letter itself: {error}")
        found = DeadLetter(WIRE_VERSION, task_id, "", "", "undecodable", failure, "", 0, b"")
    past, asked = _past(found), said(found.body)
    try:
        options = decode_message(found.body).options
    except DecodeError:
        options = None
    return DeadRecord(
        queue=queue, id=found.id, task=found.task, reason=found.reason, error_type=found.failure.type_name,
        error=found.failure.message, traceback=found.failure.traceback, lane=found.lane,
        tags=tuple(sorted(lane_tags(found.lane))) if is_lane(found.lane) else (), attempt=past.attempt,
        crashes=past.crashes, lost=past.lost, round=past.round, died_at_ms=found.died_at_ms,
        expires_at_ms=options.expires_at_ms if options is not None else None,
        replay_of=asked.replay_of if asked else "", args=asked.args if asked else None,
        kwargs=asked.kwargs if asked else {}, letter=letter,
    )  # fmt: skip


def _past(letter: DeadLetter) -> Attempt:
    try:
        return decode_attempt(letter.attempt.encode())
    except DecodeError:
        return FIRST_ATTEMPT


def why_not_retried(record: DeadRecord) -> str:
    """Say why a dead letter cannot run again; empty = it can."""
    body = decode_dead_letter(record.letter).body if record.lane else b""
    message = remains(body)
    if message is None or message.id != record.id or not is_lane(record.lane):
        return "nothing of it can be read that a worker could run: purge it"
    if record.expires_at_ms is not None and record.expires_at_ms <= SYSTEM_CLOCK.now_ms():
        return "it has expired meanwhile: send it anew"
    return ""


def retrying(keys: QueueKeys, record: DeadRecord, by: str) -> Command[str]:
    """Return the command that lets a dead letter run again, in a new round; `why_not_retried` is asked first."""
    letter = decode_dead_letter(record.letter)
    past = Attempt(round=record.round + 1)
    due = b"%b\n%b\n%b" % (letter.lane.encode(), encode_attempt(past).encode(), letter.body)
    detail = f"dead since {letter.reason}: {letter.failure.type_name}: {letter.failure.message}"
    return dead_retry(
        keys, record.id, record.letter, due, letter.limits, _journal(record, REQUEUED, by, detail, past.round)
    )


def purging(keys: QueueKeys, record: DeadRecord, by: str) -> Command[str]:
    """Return the command that frees a dead letter for good."""
    detail = f"{record.reason}: {record.error_type}: {record.error}"
    return dead_purge(keys, record.id, record.letter, _journal(record, PURGED, by, detail, record.round))


def editing(
    keys: QueueKeys, record: DeadRecord, packed: tuple[bytes, bytes | None], by: str, detail: str
) -> Command[str]:
    """Return the command that gives a dead letter other arguments.

    Args:
        keys: Its queue.
        record: It, with arguments that could be read.
        packed: Its new arguments, positional and named ones.
        by: Who does it.
        detail: What changes, for the journal.
    """
    letter = decode_dead_letter(record.letter)
    args, kwargs = msgspec.Raw(packed[0]), msgspec.Raw(packed[1] or b"\xc0")
    message = msgspec.structs.replace(decode_message(letter.body), args=args, kwargs=kwargs)
    new = msgspec.structs.replace(letter, body=msgspec.msgpack.encode(message))
    return dead_edit(
        keys, record.id, record.letter, encode_record(new), _journal(record, EDITED, by, detail, record.round)
    )


def _journal(record: DeadRecord, state: str, by: str, detail: str, in_round: int) -> bytes:
    try:
        parent, trace_id = origin_of(decode_message(decode_dead_letter(record.letter).body).options)
    except DecodeError:
        parent = trace_id = ""
    # No entry: what was on a lane has its own record, and a lost group is restored with those.
    return encode_record(
        JournalRecord(
            WIRE_VERSION, record.id, record.task, state, record.lane, b"", record.attempt, by, 0,
            SYSTEM_CLOCK.now_ms(), detail[:500], record.crashes, parent=parent, trace_id=trace_id, round=in_round,
        )
    )  # fmt: skip


# What an answer of a script means to people; "!id" is told apart.
ANSWERS = {"gone": "it is no dead letter any more", "changed": "somebody has edited it, or it has died again"}


def told(answer: str) -> str:
    """Say why a script has refused; empty = it is done."""
    if answer.startswith("!"):
        return f"task message {answer[1:]} has not ended, and has the name (unique=) that this one would have"
    return ANSWERS.get(answer, answer)


class Deed(NamedTuple):
    """Something that is done to dead letters one by one: the command for one, and why not for some."""

    command: Callable[[QueueKeys, DeadRecord, str], Command[str]]
    why_not: Callable[[DeadRecord], str]


RETRY = Deed(retrying, why_not_retried)
PURGE = Deed(purging, lambda _record: "")


def doing(reading: DeadReading, deed: Deed, by: str, *, dry_run: bool) -> Steps[list[tuple[DeadRecord, str]]]:
    """Do something to the next page of dead letters; answers for each why it was not done, empty = it was.

    Asked again after a failure it goes on behind that page: what of it was not done is still a dead letter.
    """
    records = yield from reading.page()
    refused = {record.id: deed.why_not(record) for record in records}
    open_ = [record for record in records if not refused[record.id]]
    if open_ and not dry_run:
        answers = yield [deed.command(reading.keys, record, by) for record in open_]
        refused.update((record.id, told(answer)) for record, answer in zip(open_, answers, strict=True))
    return [(record, refused[record.id]) for record in records]
