"""When a send is tried again, and for how long; the same rules for threads and loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from streamwork.config import ClientConfig
from streamwork.errors import (
    EnqueueUnknown,
    QueueFull,
    StoreError,
    StoreFull,
    StoreRejected,
    StoreUnavailable,
    TooManyLanes,
)
from streamwork.store.scripts import SENDER_LIFE_MS

T = TypeVar("T")

# What may be otherwise at the next try.
Refusal = StoreUnavailable | StoreFull | QueueFull
REFUSALS = (StoreUnavailable, StoreFull, QueueFull)
# Full jitter from 50 ms to 1 s: the first retry is below what a user notices, the last spreads 200 clients over a
# second and still lets a worker resume within two of Redis being back.
BACKOFF = tenacity.wait_random_exponential(multiplier=0.05, max=1.0)
# Whatever the settings say, nothing is sent again once the server may have forgotten its number: it would run twice.
MOST_IN_DOUBT_S = SENDER_LIFE_MS / 2000
# However short a wait is, a Redis that is there has to have a chance to answer: the first try, and each later one.
_FIRST_TRY_S, _TRY_S = 1.0, 0.05


def backoff_s(failures: int) -> float:
    """Return how long to wait after the n-th failure in a row (1 = first), at random from [0, min(1, 0.05 × 2ⁿ)]."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failures
    return float(BACKOFF(state))


def insist(ask: Callable[[], T], patience_s: float) -> T:
    """Ask until Redis answers; only for what may be asked twice, such as a look.

    A connection that lay idle while Redis was restarted fails at its next use, which says nothing about Redis now.

    Raises:
        StoreUnavailable: Not within `patience_s` seconds; 0 = one try.
    """
    give_up_s, failures = time.monotonic() + patience_s, 0
    while True:
        try:
            return ask()
        except StoreUnavailable:
            failures += 1
            pause_s = backoff_s(failures)
            if time.monotonic() + pause_s > give_up_s:
                raise
            time.sleep(pause_s)


async def ainsist(ask: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """Ask until Redis answers; see `insist`."""
    give_up_s, failures = time.monotonic() + patience_s, 0
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            failures += 1
            pause_s = backoff_s(failures)
            if time.monotonic() + pause_s > give_up_s:
                raise
            await asyncio.sleep(pause_s)


class Patience:
    """How long one chunk is tried: `send_timeout_s` while it surely had no effect, `resend_s` once it may have had.

    The second is five minutes at most.

    Args:
        config: The client's settings.
        now_s: Steady seconds at the first try.
        wait_s: What the caller said instead of both; then a Redis or a queue that is full is waited for as long, too,
            and so is each answer.
    """

    def __init__(self, config: ClientConfig, now_s: float, wait_s: float | None = None) -> None:
        timeout_s = config.send_timeout_s if wait_s is None else wait_s
        self._give_up_s = now_s + timeout_s
        self._full_s = now_s + (wait_s or 0.0)
        self._unknown_s = now_s + (max(config.resend_s, timeout_s) if wait_s is None else wait_s)
        self._first_s = None if wait_s is None else now_s + max(wait_s, _FIRST_TRY_S)
        self.in_doubt = False
        self._attempt = 0

    def answer_by_s(self, now_s: float) -> float | None:
        """Return until when (steady seconds) the next answer is waited for; None = as long as the driver does."""
        if self._first_s is None:
            return None
        return max(self._give_up_s if self._attempt else self._first_s, now_s + _TRY_S)

    def pause_s(self, error: Refusal, now_s: float, task_ids: list[str]) -> float:
        """Return how long to wait before the next try.

        Raises:
            StoreUnavailable, StoreFull, QueueFull: The time is up and nothing was sent.
            EnqueueUnknown: The time is up and it may have arrived.
        """
        is_full = isinstance(error, (StoreFull, QueueFull))
        if isinstance(error, StoreUnavailable) and not self.in_doubt and error.maybe_executed:
            self.in_doubt = True
            self._unknown_s = min(self._unknown_s, now_s + MOST_IN_DOUBT_S)
        give_up_s = self._full_s if is_full else self._give_up_s
        if self.in_doubt and now_s >= (min(give_up_s, self._unknown_s) if is_full else self._unknown_s):
            raise EnqueueUnknown(
                f"{error}: {len(task_ids)} task message(s) may have arrived, or may still arrive", task_ids
            ) from error
        if not self.in_doubt and now_s >= give_up_s:
            raise error
        self._attempt += 1
        until_s = self._unknown_s if self.in_doubt else give_up_s
        return min(backoff_s(self._attempt), max(0.0, until_s - now_s))


def refused(error: StoreError) -> StoreError | TooManyLanes:
    """Return the typed error for what the enqueue script refuses."""
    text = str(error)
    if isinstance(error, StoreRejected) and "ENQUEUE-LANES" in text:
        return TooManyLanes(
            "this queue is at its bound of distinct priorities and tag sets (client.max_lanes): use fewer tag sets"
        )
    return error


def blames_lane(error: Exception) -> bool:
    """Whether one lane of a chunk was refused, and with it the others, of which nothing was written."""
    return isinstance(error, TooManyLanes) or "ENQUEUE-TYPE" in str(error)


def is_gap(error: StoreError) -> bool:
    """Whether the server forgot this sender's last chunks (a lossy failover): nothing was written, start a new mark."""
    return "ENQUEUE-GAP" in str(error)
