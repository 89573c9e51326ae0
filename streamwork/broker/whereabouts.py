"""Where one task message is, also where nothing but its id is known."""

from __future__ import annotations

from typing import Protocol

from streamwork.broker import inspect
from streamwork.broker.lookup import find_task
from streamwork.broker.steps import Steps
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import DecodeError
from streamwork.model.state import State
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import (
    WIRE_VERSION,
    Failure,
    JournalRecord,
    decode_attempt,
    decode_message,
    encode_record,
    encode_result,
)
from streamwork.wire.origin import origin_of

_BEFORE_IT_RAN = "cancelled before it ran"


class Placed(Protocol):
    """A task message by its id, lane and first entry; both are empty where only the id is known."""

    id: str
    lane: str
    entry: str


def find_place(keys: QueueKeys, message: Placed) -> Steps[bool]:
    """Look for a message of which only the id is known, within the bounds of `lookup`; True when there is a trace."""
    if message.lane:
        return True
    view = yield from find_task([keys], message.id)
    if view is None:
        return False
    # Nothing moves back: a place found once needs not be looked for again, and what moved on is found by its id.
    message.lane, message.entry = view.lane, view.entry
    return True


def cancelling(keys: QueueKeys, message: Placed, by: str, keep_ms: int, *, terminate: bool) -> Steps[str]:
    """Ask that a task message does not run; answers ``cancelled``, ``requested`` or ``ended``.

    Args:
        keys: Its queue.
        message: It.
        by: Client that asks, whose reply stream hears of one that is cancelled at once.
        keep_ms: How long its result then says so, ≥ 1.
        terminate: A run that goes on is to be ended.
    """
    if not (yield from find_place(keys, message)):
        return "ended"
    record = encode_result("cancel", State.CANCELLED, encode_record(Failure("Cancelled", _BEFORE_IT_RAN)))
    journal = yield from _journal(keys, message.id)
    (answer,) = yield [
        scripts.cancel(
            keys, message.id, by, record, keep_ms, by, lane=message.lane, entry=message.entry, terminate=terminate,
            journal=journal,
        )
    ]  # fmt: skip
    return str(answer)


def _journal(keys: QueueKeys, task_id: str) -> Steps[bytes]:
    """Return the journal record of a message that is cancelled while it waits in due or in a line; empty = it does not.

    What moves between this look and the cancel has no record: no promise speaks of it, only history.
    """
    due, parked = yield [plain("HGET", keys.due_body, task_id), plain("HGET", keys.parked_body, task_id)]
    if due is None and parked is not None and parked.count(b"\n") >= 4:
        due = parked.split(b"\n", 2)[2]
    parts = (due or b"").split(b"\n", 2)
    try:
        lane, past, message = parts[0].decode(), decode_attempt(parts[1]), decode_message(parts[2])
    except (DecodeError, IndexError, UnicodeDecodeError):
        return b""
    parent, trace_id = origin_of(message.options)
    return encode_record(
        JournalRecord(
            WIRE_VERSION, task_id, message.task, State.CANCELLED, lane, b"", past.attempt, "", 0, SYSTEM_CLOCK.now_ms(),
            _BEFORE_IT_RAN, past.crashes, parent=parent, trace_id=trace_id,
        )
    )  # fmt: skip


def where_is(keys: QueueKeys, message: Placed) -> Steps[State]:
    """Ask where a task message is; UNKNOWN where nothing is kept any more, and for an id that was never sent here."""
    yield from find_place(keys, message)
    return (yield from inspect.where_is(keys, message.id, message.lane, message.entry))
