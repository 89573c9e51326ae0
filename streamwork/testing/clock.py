"""A clock that stands still until it is told otherwise."""

from __future__ import annotations

from datetime import timedelta

from streamwork.clock import SYSTEM_CLOCK


class ManualClock:
    """A `Clock` for tests.

    What it moves: with ``run_until_idle(app, clock=clock)``, which task messages count as due, and the instants that
    the worker writes (start, end, run-at of a retry). An `EmbeddedWorker` takes one too. What it does not move: Redis,
    whose TTLs, stream ids and own promotion of what is due go by its own time, and pauses inside the tasks.

    Args:
        now_ms: Where the wall clock stands, milliseconds since 1970 UTC; None = the machine's time now.
    """

    def __init__(self, now_ms: int | None = None) -> None:
        self._now_ms = SYSTEM_CLOCK.now_ms() if now_ms is None else now_ms
        self._steady_ms = SYSTEM_CLOCK.steady_ms()

    def now_ms(self) -> int:
        """Return where the wall clock stands, milliseconds since 1970 UTC."""
        return self._now_ms

    def steady_ms(self) -> int:
        """Return where the steady clock stands, milliseconds."""
        return self._steady_ms

    def advance(self, span: float | timedelta) -> None:
        """Move both clocks on by seconds (or a timedelta), ≥ 0; raises ValueError for less."""
        seconds = span.total_seconds() if isinstance(span, timedelta) else span
        if seconds < 0:
            raise ValueError(f"advance({span!r}): time does not run backwards")
        ms = round(seconds * 1000)
        self._now_ms += ms
        self._steady_ms += ms
