"""Waits that would never end: refused before they begin, or ended."""

from __future__ import annotations

import asyncio
import math
import queue
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from streamwork.context import current
from streamwork.errors import StoreError, UseAsync
from streamwork.handle import Handle
from streamwork.model.state import State

# A result that is not kept leaves nothing behind that a late wait could hear of. So a wait asks every few seconds where
# its message is, as long as there are not so many waits that it would be felt; twice, since a message on its way from
# lane to due may be seen in neither.
_ASK_S, _MOST_ASKING = 2.0, 100
_GONE = b"\nunknown\n"


def arrival(
    arrived: queue.SimpleQueue[bytes], give_up_s: float | None, state: Callable[[], State], waiting: Callable[[], int]
) -> bytes | None:
    """Return the record that arrives, one that says "ended, nothing kept", or None when the (monotonic) time is up."""
    while True:
        pause_s, is_last = _pause(give_up_s, time.monotonic())
        try:
            return arrived.get(timeout=pause_s)
        except queue.Empty:
            if is_last:
                return None
        try:
            if waiting() <= _MOST_ASKING and state() == State.UNKNOWN and state() == State.UNKNOWN:
                arrived.put(_GONE)  # behind what has arrived meanwhile
        except StoreError:
            pass  # what arrives once Redis is back counts


async def aarrival(
    arrived: asyncio.Future[bytes], give_up_s: float | None, state: Callable[[], Awaitable[State]], waiting: Callable[[], int]
) -> bytes | None:
    """Return what `arrival` does; `give_up_s` is the loop's time."""
    now = asyncio.get_running_loop().time
    while True:
        pause_s, is_last = _pause(give_up_s, now())
        await asyncio.wait({arrived}, timeout=pause_s)
        if arrived.done():
            return arrived.result()
        if is_last:
            return None
        try:
            if waiting() <= _MOST_ASKING and await state() == State.UNKNOWN and await state() == State.UNKNOWN:
                return arrived.result() if arrived.done() else _GONE
        except StoreError:
            pass  # what arrives once Redis is back counts


def _pause(give_up_s: float | None, now_s: float) -> tuple[float, bool]:
    left_s = math.inf if give_up_s is None else max(0.0, give_up_s - now_s)
    return min(left_s, _ASK_S), left_s <= _ASK_S


def refuse_on_loop(blocking: str, twin: str) -> None:
    """Raise UseAsync on a running loop's thread: the call would stop every coroutine there (rule 37)."""
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public form raises instead, 1 us slower
        raise UseAsync(f"{blocking}() would block this event loop: use await {twin}()")


def check_inside_task(handle: Handle[Any]) -> None:
    """Warn where a task waits for its own queue, and raise where that may never end (rule 37)."""
    context = current()
    if context is None or context.queue != handle.queue:
        return
    if context.free_slots is not None and context.free_slots(handle.id) <= 0:
        raise UseAsync(
            f"{context.task_name} waits for {handle.id} on its own queue {handle.queue!r} and its worker has no free slot: "
            "this may never end; enqueue a follow-up instead, or raise --slots"
        )
    warnings.warn(
        f"{context.task_name} waits for a task of its own queue {handle.queue!r}: with all slots waiting, nothing moves",
        RuntimeWarning, stacklevel=4,
    )  # fmt: skip
