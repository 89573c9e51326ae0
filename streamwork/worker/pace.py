"""How soon a process that ended is replaced, and a duty that failed is begun anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)

# A process that dies sooner than this after its start is replaced after a pause that doubles from 0.25 s up to 30 s.
QUICK_DEATH_S = 5.0
_FIRST_S, _MOST_S = 0.25, 30.0
_DUTY_PAUSE_S = 1.0


class Pace:
    """Holds back replacements of processes that die again and again, until something changes."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._quick_deaths = 0

    def hurry(self) -> None:
        """Wait no longer: the code changed, or the end has come."""
        self._changed.set()

    async def wait(self, age_s: float, *, worked: bool, hopeless: bool) -> None:
        """Wait before replacing a process.

        Args:
            age_s: How long it lived.
            worked: Whether it ended in order and had taken work.
            hopeless: Whether the next would end in the same way unless something changes.
        """
        quick = age_s < QUICK_DEATH_S and not worked and not self._changed.is_set()
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if hopeless or quick:
            pause_s = None if hopeless else min(_MOST_S, _FIRST_S * 2 ** (self._quick_deaths - 1))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
        self._changed.clear()


async def on_duty(duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do a duty to its end, beginning anew after each failure."""
    while True:
        try:
            return await duty()
        except Exception:
            logger.exception("a duty of the supervisor failed and is begun anew")
            await asyncio.sleep(_DUTY_PAUSE_S)
