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
        raise AlreadyQueued(f"{_there(handle, there)}; nothing was sent", there)
    if entry[:1] == "=":
        handle.id, handle.lane, handle.entry = entry[1:], "", ""
    else:
        handle.entry = entry
    return replaced


def taken_all(
    handles: Sequence[Handle[Any]], answers: Sequence[str], batch: Sequence[Handle[Any]], sent: int
) -> list[tuple[str, str]]:
    """Write the answers of a chunk into its handles; returns (queue, id) of what they replaced.

    Args:
        handles: Those of the chunk.
        answers: Theirs.
        batch: The handles of all calls until now, in their order.
        sent: How many messages of the batch were sent before this chunk.

    Raises:
        AlreadyQueued: One of them was refused; all of the chunk has its answer, and the others that were not are sent.
    """
    replaced: list[tuple[str, str]] = []
    refused: list[tuple[Handle[Any], AlreadyQueued]] = []
    for handle, answer in zip(handles, answers, strict=True):
        try:
            task_id = taken(handle, answer)
        except AlreadyQueued as error:
            refused.append((handle, error))
        else:
            if task_id:
                replaced.append((handle.queue, task_id))
    if refused:
        raise _of_batch(refused, batch, sent + len(handles) - len(refused))
    return replaced


def _of_batch(
    refused: Sequence[tuple[Handle[Any], AlreadyQueued]], batch: Sequence[Handle[Any]], sent: int
) -> AlreadyQueued:
    handle, error = refused[0]
    number = next(number for number, each in enumerate(batch, 1) if each is handle)
    more = f", and {len(refused) - 1:,} more that were sent with it" if len(refused) > 1 else ""
    return AlreadyQueued(
        f"call {number:,} of the batch was refused{more}: {_there(handle, error.task_id)}; {sent:,} others were sent "
        "and stay sent, and any that are left were not",
        error.task_id,
    )


def _there(handle: Handle[Any], task_id: str) -> str:
    return f"task message {task_id} with this unique key has not ended (queue {handle.queue!r})"
