"""When the next messages of a replay go: by a rate, or in the rhythm in which the past ones were made."""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Callable, Iterable, Iterator

from streamwork.errors import ConfigError
from streamwork.replay.choosing import Chosen

# The history is in the order of ends; so many are held back to put them into the order in which they were made.
_AHEAD = 10_000
_FACTOR = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)x")
# A wait is cut into pieces, so that a progress bar moves and an interruption is heard.
_PIECE_S = 0.5


def pace_of(said: str | float | None) -> float | None:
    """Return how many times faster than the past: of ``1x``, ``10x`` or a number; None = as fast as it goes.

    Raises:
        ConfigError: It is none of these.
    """
    if said is None or said == "max":
        return None
    found = _FACTOR.fullmatch(said) if isinstance(said, str) else None
    factor = float(found[1]) if found else said
    if isinstance(factor, (int, float)) and not isinstance(factor, bool) and 0 < factor < 1e6:
        return float(factor)
    raise ConfigError(f"pace {said!r}: give 1x, 10x or another factor, or max")


def rate_of(said: float | None) -> float | None:
    """Return messages a second; None = as many as it goes; raises ConfigError."""
    if said is None:
        return None
    if isinstance(said, (int, float)) and not isinstance(said, bool) and 0 < said < 1e9:
        return float(said)
    raise ConfigError(f"rate {said!r}: give messages a second, more than 0")


def by_creation(chosen: Iterable[Chosen]) -> Iterator[Chosen]:
    """Yield calls in the order in which they were made, as far as 10,000 are ahead of their place."""
    heap: list[tuple[int, int, Chosen]] = []
    for number, one in enumerate(chosen):
        heapq.heappush(heap, (one.call.made_at_ms, number, one))
        if len(heap) > _AHEAD:
            yield heapq.heappop(heap)[2]
    while heap:
        yield heapq.heappop(heap)[2]


class Pace:
    """Says how long to wait before each message.

    Args:
        rate: Messages a second at most; None = no bound.
        factor: How many times faster than they were made; None = as fast as it goes.
        now_s: A clock that only grows.
    """

    def __init__(self, rate: float | None, factor: float | None, now_s: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._factor, self._now_s = rate, factor, now_s
        self._begun_s: float | None = None
        self._first_ms = 0
        self._next_s = 0.0

    def wait_s(self, made_at_ms: int) -> float:
        """Return how long the next message has to wait from now on, which is one that was made then."""
        now_s = self._now_s()
        if self._begun_s is None:
            self._begun_s, self._first_ms, self._next_s = now_s, made_at_ms, now_s
        due_s = self._next_s
        if self._factor is not None:
            due_s = max(due_s, self._begun_s + (made_at_ms - self._first_ms) / 1000 / self._factor)
        if self._rate is not None:
            # What was missed is not made up for: a rate is a promise to what receives.
            self._next_s = max(due_s, now_s) + 1 / self._rate
        return max(0.0, due_s - now_s)


def sleep(wait_s: float) -> None:
    """Wait in small pieces."""
    until_s = time.monotonic() + wait_s
    while (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, _PIECE_S))
