"""Waits that would never end, refused before they begin."""

from __future__ import annotations

import warnings
from typing import Any

from streamwork.context import current, refuse_on_loop
from streamwork.errors import UseAsync
from streamwork.handle import Handle

__all__ = ["check_inside_task", "refuse_on_loop"]


def check_inside_task(handle: Handle[Any]) -> None:
    """Warn where a task waits for its own queue, and raise where that may never end (rule 37)."""
    context = current()
    if context is None or context.queue != handle.queue:
        return
    if context.free_slots is not None and context.free_slots(handle.id) <= 0:
        raise UseAsync(
            f"{context.task_name} waits for {handle.id} on its own queue {handle.queue!r} "
            "and its worker has no free slot: "
            "this may never end; enqueue a follow-up instead, or raise --slots"
        )
    warnings.warn(
        f"{context.task_name} waits for a task of its own queue {handle.queue!r}: "
        "with all slots waiting, nothing moves",
        RuntimeWarning,
        stacklevel=4,
    )
