"""Where one task message is, also where nothing but its id is known."""

from __future__ import annotations

from typing import Protocol

from streamwork.broker import inspect
from streamwork.broker.lookup import find_task
from streamwork.broker.steps import Steps
from streamwork.model.state import State
from streamwork.store import scripts
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import Failure, encode_record, encode_result


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
    record = encode_result("cancel", State.CANCELLED, encode_record(Failure("Cancelled", "cancelled before it ran")))
    (answer,) = yield [
        scripts.cancel(
            keys, message.id, by, record, keep_ms, by, lane=message.lane, entry=message.entry, terminate=terminate
        )
    ]
    return str(answer)


def where_is(keys: QueueKeys, message: Placed) -> Steps[State]:
    """Ask where a task message is; UNKNOWN where nothing is kept any more, and for an id that was never sent here."""
    yield from find_place(keys, message)
    return (yield from inspect.where_is(keys, message.id, message.lane, message.entry))
