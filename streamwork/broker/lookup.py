"""Find one task message by its bare id, wherever it is: result, due, dead letters, lanes, journal.

There is no index from id to entry (it would cost 100 bytes a task). What waits, is due, is dead or has a result is
found by key. An entry is looked for on each lane around the time in its UUIDv7, from `BEFORE_MS` before to `AFTER_MS`
after and among `MOST_ENTRIES` at most; the journal is read from the same time on, `MOST_RECORDS` at most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from streamwork.broker.bodies import read_bodies
from streamwork.broker.inspect import order
from streamwork.broker.stats import last_delivered
from streamwork.broker.steps import Steps, at_once, refused
from streamwork.errors import DecodeError, WireError
from streamwork.ids import task_id_at_ms
from streamwork.model.flow import group_of
from streamwork.model.pausing import is_held
from streamwork.model.state import State
from streamwork.store.commands import plain
from streamwork.store.keys import GROUP, RETURNED_CONSUMER, QueueKeys
from streamwork.store.scripts import TERMINATE
from streamwork.wire.codec import unpacker
from streamwork.wire.message import (
    FIRST_ATTEMPT,
    Attempt,
    Failure,
    JournalRecord,
    decode_attempt,
    decode_dead_letter,
    decode_failure,
    decode_journal,
    decode_message,
    decode_result,
)

# A clock may differ by seconds, and a lost answer is asked for again for 60 s before the sender gives up.
BEFORE_MS, AFTER_MS = 5_000, 65_000
MOST_ENTRIES, MOST_RECORDS, _PAGE = 50_000, 100_000, 1_000
# How a dead letter without a readable body is called: entry-<lane>-<entry id>.
UNDECODABLE = "entry-"

_anything = unpacker(Any)


class TaskView(msgspec.Struct):
    """What is known of one task message; what is not is None or empty.

    Attributes:
        id, queue, task: Task id, where it was found, task name.
        state: Where it is in its life; ``unknown`` when its entry was settled and neither result nor journal is kept.
        args, kwargs: Arguments in their plain form; None = the body is not kept.
        lane, entry, created_at_ms: Lane name; entry id of the last known delivery; from the id.
        attempt, round: Run that comes next, goes on or was the last; grows when a dead letter is retried.
        crashes, run_at_ms: Processes that died while it ran; when it is due.
        consumer, worker: Who has it, and that consumer's registration.
        result, failure: What it returned, in its plain form; type, message and traceback of what ended it.
        reason, died_at_ms: Why it is dead, and since when.
        cancel_asked, terminate_asked: It is marked as cancelled; a run that goes on is to be ended too.
        journal: What came of each delivery, oldest first.
        is_held, parked_behind: It is set aside until its paused task is resumed; the limit that it waits for.
        group: Its group's own line; "" = none is known.
        is_whole: False when a bound was reached while looking, so that more may be there.
    """

    id: str
    queue: str = ""
    state: State = State.UNKNOWN
    task: str = ""
    args: list[Any] | None = None
    kwargs: dict[str, Any] = {}
    lane: str = ""
    entry: str = ""
    created_at_ms: int | None = None
    attempt: int = 1
    round: int = 1
    crashes: int = 0
    run_at_ms: int | None = None
    consumer: str = ""
    worker: dict[str, Any] = {}
    result: Any = None
    failure: Failure | None = None
    reason: str = ""
    died_at_ms: int | None = None
    cancel_asked: bool = False
    terminate_asked: bool = False
    journal: list[JournalRecord] = []
    is_held: bool = False
    parked_behind: str = ""
    group: str = ""
    is_whole: bool = True


def find_task(keys: Sequence[QueueKeys], task_id: str) -> Steps[TaskView | None]:
    """Find a task message in the first of these queues that knows it; None = no trace of it.

    Args:
        keys: Queues to look into.
        task_id: 32 hex digits, or ``entry-…`` as dead letters of undecodable entries are called.
    """
    for each in keys:
        view = TaskView(task_id, each.queue, created_at_ms=_made_at_ms(task_id))
        if (yield from _look_into(each, view)):
            return view
    return None


def _made_at_ms(task_id: str) -> int | None:
    if not task_id.startswith(UNDECODABLE):
        return task_id_at_ms(task_id)
    ms = task_id.rsplit("-", 2)[-2]
    return int(ms) if ms.isdecimal() else None


def _look_into(keys: QueueKeys, view: TaskView) -> Steps[bool]:
    result, due, dead, moved = by_key = yield from _by_key(keys, view)
    found = any(part is not None for part in by_key)
    if due is not None:
        lane, record, body = due.split(b"\n", 2)
        view.lane, view.state = lane.decode(), State.WAITING if view.parked_behind else State.SCHEDULED
        _read_attempt(view, decode_attempt(record))
        _read_body(view, body)
    if dead is not None:
        _read_dead(view, dead)
    if moved is not None:
        lane, _, entry = moved.partition(b"\n")
        found = (yield from _read_entry(keys, view, lane.decode(), entry)) or found
    elif view.args is None:
        found = (yield from _scan_lanes(keys, view)) or found
    found = (yield from _read_journal(keys, view)) or found
    if view.round > 1 and due is None and dead is None:  # it may have been edited before its last round
        for last in (yield from read_bodies(keys, view.journal[-1:])):
            _read_body(view, last or b"")
    if result is not None:
        _read_result(view, result)
    view.state = view.state.marked(view.cancel_asked, view.terminate_asked)
    return found


def _by_key(keys: QueueKeys, view: TaskView) -> Steps[tuple[bytes | None, bytes | None, bytes | None, bytes | None]]:
    """Read what is kept under the id: result, due record, dead letter, place after a promotion."""
    answers = yield at_once([
        plain("GET", keys.result(view.id)), plain("HGET", keys.due_body, view.id), plain("ZSCORE", keys.due, view.id),
        plain("HGET", keys.dead_body, view.id), plain("HGET", keys.moved, view.id),
        plain("HGET", keys.cancelled, view.id), plain("HGET", keys.parked_body, view.id),
        plain("HGET", keys.flow, view.id),
    ])  # fmt: skip
    result, due, run_at, dead, moved, mark, parked, limits = answers[-1]
    view.cancel_asked, view.terminate_asked = mark is not None, (mark or b"").endswith(TERMINATE)
    if run_at is not None:
        view.is_held, view.run_at_ms = (True, None) if is_held(float(run_at)) else (False, int(float(run_at)))
    if due is None and parked is not None and parked.count(b"\n") >= 4:
        view.group = group_of(limits)
        view.parked_behind, due = parked.split(b"\n", 1)[0].decode(errors="replace"), parked.split(b"\n", 2)[2]
    return result, due, dead, moved


def _scan_lanes(keys: QueueKeys, view: TaskView) -> Steps[bool]:
    """Look for the first entry around the time in the id."""
    if view.created_at_ms is None:
        return False
    until = view.created_at_ms + AFTER_MS
    (lanes,) = yield [plain("HKEYS", keys.lanes)]
    for name in sorted(lanes):
        lane, since, seen = name.decode(), str(max(0, view.created_at_ms - BEFORE_MS)), 0
        while seen < MOST_ENTRIES:
            (rows,) = yield [plain("XRANGE", keys.lane(lane), since, until, "COUNT", _PAGE)]
            for entry, fields in rows:
                if _holds(fields, view.id):
                    return (yield from _read_entry(keys, view, lane, entry))
            if len(rows) < _PAGE:
                break
            since, seen = "(" + rows[-1][0].decode(), seen + len(rows)
        else:
            view.is_whole = False
    return False


def _holds(fields: list[bytes], task_id: str) -> bool:
    # The look at the bytes is 20 times faster than decoding; another message may hold the id among its arguments.
    bodies = [body for name, body in zip(fields[::2], fields[1::2], strict=True) if name == b"d"]
    found = (_decoded(decode_message, body) for body in bodies if task_id.encode() in body)
    return any(message is not None and message.id == task_id for message in found)


def _read_entry(keys: QueueKeys, view: TaskView, lane: str, entry: bytes) -> Steps[bool]:
    """Read one lane entry, who has it, and what its crashes were."""
    stream = keys.lane(lane)
    answers = yield at_once([
        plain("XRANGE", stream, entry, entry), plain("XPENDING", stream, GROUP, entry, entry, 1),
        plain("XINFO", "GROUPS", stream), plain("HGET", keys.suspects, f"{lane}/{entry.decode()}"),
    ])  # fmt: skip
    rows, pending, groups, suspicion = answers[-1]
    if not rows or refused(rows):
        return False
    fields = dict(zip(rows[0][1][::2], rows[0][1][1::2], strict=True))
    view.lane, view.entry = lane, entry.decode()
    _read_body(view, fields.get(b"d", b""))
    if b"a" in fields:
        _read_attempt(view, decode_attempt(fields[b"a"]))
    if suspicion is not None:
        view.crashes += int(suspicion.split(b",", 1)[0])
    if pending and not refused(pending):
        yield from _read_owner(keys, view, pending[0][1])
    elif order(entry) > order(last_delivered(groups).encode()):
        view.state = State.WAITING
    return True


def _read_owner(keys: QueueKeys, view: TaskView, owner: bytes) -> Steps[None]:
    if owner.decode() == RETURNED_CONSUMER:
        view.state = State.WAITING
        return
    view.state, view.consumer = State.RUNNING, owner.decode()
    (registration,) = yield [plain("HGET", keys.consumers, owner)]
    if registration is not None:
        with contextlib.suppress(msgspec.MsgspecError):  # registered by another version
            view.worker = msgspec.json.decode(registration, type=dict[str, Any])


def _read_journal(keys: QueueKeys, view: TaskView) -> Steps[bool]:
    """Collect the records of this id."""
    since, seen, needle = "-", 0, view.id.encode()
    if view.created_at_ms is not None:
        since = str(max(0, view.created_at_ms - BEFORE_MS))
    found: list[JournalRecord] = []
    while seen < MOST_RECORDS:
        (rows,) = yield [plain("XRANGE", keys.journal, since, "+", "COUNT", _PAGE)]
        for _, fields in rows:
            if needle in fields[1]:
                record = _decoded(decode_journal, fields[1])
                if record is not None and record.id == view.id:
                    found.append(record)
        if len(rows) < _PAGE:
            break
        since, seen = "(" + rows[-1][0].decode(), seen + len(rows)
    else:
        view.is_whole = False
    view.journal = found
    if found:
        _read_last_record(view, found[-1])
    return bool(found)


def _read_last_record(view: TaskView, last: JournalRecord) -> None:
    view.task = view.task or last.task
    view.crashes = max(view.crashes, last.crashes)
    if view.state == State.UNKNOWN:
        view.lane, view.entry = view.lane or last.lane, last.entry.decode()
        view.attempt, view.round, view.consumer = last.attempt, last.round, last.consumer
        if last.state in State.__members__.values():
            view.state = State(last.state)
            view.reason = last.detail


def _read_result(view: TaskView, record: bytes) -> None:
    if (result := _decoded(decode_result, record)) is None:
        return
    if result.state in State.__members__.values():
        view.state = State(result.state)
    if view.state in (State.SUCCEEDED, State.SKIPPED):
        view.result = _decoded(_anything, result.payload)
    else:
        view.failure = view.failure or _decoded(decode_failure, result.payload)


def _read_dead(view: TaskView, data: bytes) -> None:
    view.state = State.DEAD
    if (letter := _decoded(decode_dead_letter, data)) is None:
        return
    view.task, view.lane, view.reason, view.failure = letter.task, letter.lane, letter.reason, letter.failure
    view.died_at_ms = letter.died_at_ms
    if (attempt := _decoded(decode_attempt, letter.attempt.encode())) is not None:
        _read_attempt(view, attempt)
    _read_body(view, letter.body)


def _read_attempt(view: TaskView, attempt: Attempt = FIRST_ATTEMPT) -> None:
    view.attempt, view.crashes, view.round = attempt.attempt, attempt.crashes, attempt.round


def _read_body(view: TaskView, body: bytes) -> None:
    if (message := _decoded(decode_message, body)) is None:
        return
    view.task = message.task
    view.args = _decoded(_anything, bytes(message.args))
    view.kwargs = _decoded(_anything, bytes(message.kwargs)) or {}


def _decoded(decode: Any, data: bytes) -> Any:
    """Decode, or None: what another version or a stranger wrote must not hide the rest."""
    try:
        return decode(data)
    except (DecodeError, WireError):
        return None
