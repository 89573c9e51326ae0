"""What came of a task message that was sent, where that may be another one's handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamwork.errors import AlreadyQueued
from streamwork.handle import Handle

# Entry ids are shorter, and all that submit.lua answers beside them holds a task id, which is longer.
_LONGEST_ENTRY = 30


def taken(handle: Handle[Any], answer: str) -> str:
    """Write the answer of a send into its handle; returns the id of a task message that it replaced, empty = none.

    Raises:
        AlreadyQueued: It was refused; the handle says nothing.
    """
    if len(answer) < _LONGEST_ENTRY:
        handle.entry = answer
        return ""
    entry, _, replaced = answer.partition("~")
    if entry[:1] == "!":
        there = entry[1:]
        raise AlreadyQueued(
            f"task message {there} with this unique key has not ended (queue {handle.queue!r}); nothing was sent", there
        )
    if entry[:1] == "=":
        handle.id, handle.lane, handle.entry = entry[1:], "", ""
    else:
        handle.entry = entry
    return replaced


def taken_all(handles: Sequence[Handle[Any]], answers: Sequence[str]) -> list[tuple[str, str]]:
    """Write the answers of a chunk into its handles; returns (queue, id) of what they replaced.

    Raises:
        AlreadyQueued: One of them was refused; all of the chunk has its answer, and the others that were not are sent.
    """
    replaced: list[tuple[str, str]] = []
    refused: AlreadyQueued | None = None
    for handle, answer in zip(handles, answers, strict=True):
        try:
            task_id = taken(handle, answer)
        except AlreadyQueued as error:
            refused = refused or error
        else:
            if task_id:
                replaced.append((handle.queue, task_id))
    if refused is not None:
        raise refused
    return replaced
