"""Read-only views: where one task message is, and how the queues stand. Nothing here writes or scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamwork.model.state import State
from streamwork.store.commands import Command, plain
from streamwork.store.keys import GROUP, QueueKeys
from streamwork.wire.message import decode_result


def look_for(keys: QueueKeys, task_id: str, lane: str, entry: str) -> list[Command[Any]]:
    """Return the commands that find one task message whose first lane entry is known; `state_of` reads the answers."""
    stream = keys.lane(lane)
    return [
        plain("GET", keys.result(task_id)),
        plain("ZSCORE", keys.due, task_id),
        plain("ZSCORE", keys.dead, task_id),
        plain("HGET", keys.moved, task_id),
        plain("XPENDING", stream, GROUP, entry, entry, 1, if_gone=[]) if entry else plain("ECHO", ""),
        plain("XRANGE", stream, entry, entry) if entry else plain("ECHO", ""),
        plain("XINFO", "GROUPS", stream, if_gone=[]),
    ]


def state_of(answers: Sequence[Any]) -> State:
    """Return the state that the answers to `look_for` show; UNKNOWN where nothing is kept any more."""
    result, due, dead, moved, pending, stored, groups = answers
    if result is not None:
        state = decode_result(result).state
        return State(state) if state in State.__members__.values() else State.UNKNOWN
    if due is not None:
        return State.SCHEDULED
    if dead is not None:
        return State.DEAD
    if pending:
        return State.RUNNING
    if moved is not None:
        return State.WAITING
    if stored and _undelivered(stored[0][0], groups):
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
