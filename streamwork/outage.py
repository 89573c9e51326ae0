"""One loss of Redis, however many parts of a program meet it: a line when it begins, a line when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

from streamwork.clock import SYSTEM_CLOCK

logger = logging.getLogger(__name__)

# Hears what kept the first part from Redis, and then None, once no part is kept from it any more.
Told = Callable[[str | None], None]


class OutageLog:
    """Writes both lines; the second says how long it was."""

    def __init__(self) -> None:
        self._began_ms = 0

    def __call__(self, error: str | None) -> None:
        """Hear of a begin (the error) or an end (None)."""
        if error is not None:
            self._began_ms = SYSTEM_CLOCK.steady_ms()
            logger.warning("Redis is away", extra={"error": error})
            return
        logger.warning("Redis is back", extra={"away_s": round((SYSTEM_CLOCK.steady_ms() - self._began_ms) / 1000, 2)})


class Outage:
    """Who is kept from Redis now.

    Args:
        told: Hears of each begin and end; None = they are logged.

    Attributes:
        listeners: Who hears of them besides.
    """

    def __init__(self, told: Told | None = None) -> None:
        self._told = told or OutageLog()
        self.listeners: list[Told] = []
        self._parts: set[str] = set()

    def failed(self, part: str, error: object) -> None:
        """Note that a part was kept from Redis; it says so each time, and only the first of all parts is told."""
        is_first = not self._parts
        self._parts.add(part)
        if is_first:
            self._tell(str(error))

    def forget(self, part: str) -> None:
        """Forget a part that asks no more; where it was the last one, nobody knows how it is, and nothing is told."""
        self._parts.discard(part)

    def hear(self, part: str, error: str | None) -> None:
        """Note what another process says of itself."""
        if error is None:
            self.over(part)
        else:
            self.failed(part, error)

    def over(self, part: str) -> None:
        """Note that a part has had an answer, or is no more; the last one's is told."""
        if part in self._parts:
            self._parts.discard(part)
            if not self._parts:
                self._tell(None)

    def _tell(self, error: str | None) -> None:
        for told in (self._told, *self.listeners):
            told(error)
