"""Where time comes from; no other module asks the operating system for it.

Instants are integer milliseconds named `_at_ms`, spans are `_ms`.
"""

from __future__ import annotations

import time
from typing import Protocol

# A suspended machine must count as time passed (rule 12), which CLOCK_MONOTONIC hides on Linux.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What the rest of streamwork asks of a clock."""

    def now_ms(self) -> int:
        """Return the wall clock, milliseconds since 1970 UTC."""
        ...

    def steady_ms(self) -> int:
        """Return milliseconds that never run backwards and count suspended time."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Return the wall clock, milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        """Return milliseconds that never run backwards and count suspended time."""
        return time.clock_gettime_ns(_BOOT_CLOCK) // 1_000_000


SYSTEM_CLOCK = SystemClock()
