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
from streamwork.broker.taskview import (
    TaskView,
    decoded,
    read_attempt,
    read_body,
    read_dead,
    read_last_record,
    read_result,
)
from streamwork.ids import task_id_at_ms
from streamwork.model.flow import group_of
from streamwork.model.pausing import is_held
from streamwork.model.state import State
from streamwork.store.commands import plain
from streamwork.store.keys import GROUP, RETURNED_CONSUMER, QueueKeys
from streamwork.store.scripts import TERMINATE
from streamwork.wire.message import JournalRecord, decode_attempt, decode_journal, decode_message

# A clock may differ by seconds, and a lost answer is asked for again for 60 s before the sender gives up.
BEFORE_MS, AFTER_MS = 5_000, 65_000
MOST_ENTRIES, MOST_RECORDS, _PAGE = 50_000, 100_000, 1_000
# How a dead letter without a readable body is called: entry-<lane>-<entry id>.
UNDECODABLE = "entry-"


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
        read_attempt(view, decode_attempt(record))
        read_body(view, body)
    if dead is not None:
        read_dead(view, dead)
    if moved is not None:
        lane, _, entry = moved.partition(b"\n")
        found = (yield from _read_entry(keys, view, lane.decode(), entry)) or found
    elif view.args is None:
        found = (yield from _scan_lanes(keys, view)) or found
    found = (yield from _read_journal(keys, view)) or found
    if view.round > 1 and due is None and dead is None:  # it may have been edited before its last round
        for last in (yield from read_bodies(keys, view.journal[-1:])):
            read_body(view, last or b"")
    if result is not None:
        read_result(view, result)
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
    found = (decoded(decode_message, body) for body in bodies if task_id.encode() in body)
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
    read_body(view, fields.get(b"d", b""))
    if b"a" in fields:
        read_attempt(view, decode_attempt(fields[b"a"]))
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
                record = decoded(decode_journal, fields[1])
                if record is not None and record.id == view.id:
                    found.append(record)
        if len(rows) < _PAGE:
            break
        since, seen = "(" + rows[-1][0].decode(), seen + len(rows)
    else:
        view.is_whole = False
    view.journal = found
    if found:
        read_last_record(view, found[-1])
    return bool(found)
