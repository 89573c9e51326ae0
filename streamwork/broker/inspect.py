"""Read-only views: where one task message is, and how the queues stand. Nothing here writes or scans."""

from __future__ import annotations

from typing import Any

from streamwork.broker.steps import Steps
from streamwork.model.state import State
from streamwork.store.commands import Command, plain
from streamwork.store.keys import GROUP, RETURNED_CONSUMER, QueueKeys
from streamwork.store.scripts import TERMINATE
from streamwork.wire.message import decode_result


def where_is(keys: QueueKeys, task_id: str, lane: str, entry: str) -> Steps[State]:
    """Ask where a task message is.

    Args:
        keys: Its queue.
        task_id: Its id.
        lane: The lane of its first entry.
        entry: That entry; empty for one that was scheduled.

    Returns:
        The state; UNKNOWN where nothing is kept any more.
    """
    result, due, dead, moved, parked, mark, *place = yield [
        plain("GET", keys.result(task_id)),
        plain("ZSCORE", keys.due, task_id),
        plain("ZSCORE", keys.dead, task_id),
        plain("HGET", keys.moved, task_id),
        plain("HEXISTS", keys.parked_body, task_id),
        plain("HGET", keys.cancelled, task_id),
        *_look_at(keys, lane, entry),
    ]
    if result is not None:
        state = decode_result(result).state
        return State(state) if state in State.__members__.values() else State.UNKNOWN
    marks = mark is not None, mark is not None and mark.endswith(TERMINATE)
    if due is not None:
        return State.SCHEDULED.marked(*marks)
    if dead is not None:
        return State.DEAD
    if parked:
        return State.WAITING.marked(*marks)
    if moved is not None:  # a retry, or what was scheduled: the first entry is settled, or there was none
        lane, _, entry = moved.decode(errors="replace").partition("\n")
        place = yield _look_at(keys, lane, entry)
    return _state_at(*place).marked(*marks)


def _look_at(keys: QueueKeys, lane: str, entry: str) -> list[Command[Any]]:
    if not entry:
        return []
    stream = keys.lane(lane)
    return [
        plain("XPENDING", stream, GROUP, entry, entry, 1, if_gone=[]),
        plain("XRANGE", stream, entry, entry),
        plain("XINFO", "GROUPS", stream, if_gone=[]),
        plain("HEXISTS", keys.restoring, lane),
    ]


def _state_at(
    pending: list[list[Any]] | None = None,
    stored: Any = None,
    groups: list[list[Any]] | None = None,
    is_restoring: int = 0,
) -> State:
    if pending:
        return State.WAITING if pending[0][1] == RETURNED_CONSUMER.encode() else State.RUNNING
    if stored and (is_restoring or _undelivered(stored[0][0], groups or [])):
        return State.WAITING
    return State.UNKNOWN


def _undelivered(entry: bytes, groups: list[list[Any]]) -> bool:
    for group in groups:
        facts = dict(zip(group[::2], group[1::2], strict=True))
        if facts[b"name"] == GROUP.encode():
            return order(entry) > order(facts[b"last-delivered-id"])
    return True


def order(entry: bytes) -> tuple[int, int]:
    """Return an entry id in a form that sorts."""
    ms, _, seq = entry.partition(b"-")
    return int(ms), int(seq or 0)
