"""What a supervisor tells of itself and its queues: events, sent together, and kept while Redis is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import StoreError
from streamwork.ids import random_id
from streamwork.service import Service
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.telling import announce
from streamwork.wire.event import encode_event

logger = logging.getLogger(__name__)

# What is kept for a Redis that is away: the oldest go first.
MOST_WAITING, AT_ONCE = 1_000, 100
# Events do not hold up a worker's end where Redis hangs.
_LAST_S = 1.0


class Teller(Service):
    """Sends the events of one supervisor; nobody waits for it.

    Args:
        driver: The supervisor's connection.
        namespace: The app's.
        me: Name of the supervisor, for its own outages.
    """

    name = "teller"
    # It is nudged; this is for what a failure left.
    interval_s = 30.0

    def __init__(self, driver: AsyncDriver, namespace: str, me: str) -> None:
        super().__init__()
        self._driver, self._namespace, self._me = driver, namespace, me
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=MOST_WAITING)
        self._away_since_ms = 0

    def tell(self, type_: str, *, queue: str = "", worker: str = "", detail: str = "", **facts: Any) -> None:
        """Let an event of `model.event.TYPES` be told as of now."""
        self._put(type_, SYSTEM_CLOCK.now_ms(), queue, worker, detail, facts)

    def _put(self, type_: str, at_ms: int, queue: str, worker: str, detail: str, facts: dict[str, Any]) -> None:
        self._waiting.append((random_id(), encode_event(type_, at_ms, queue, worker, detail[:500], facts)))
        self.nudge()

    def on_outage(self, error: str | None) -> None:
        """Hear that Redis is away (the error), or back (None); both are told once it is."""
        now_ms = SYSTEM_CLOCK.now_ms()
        if error is not None:
            self._away_since_ms = now_ms
            self._put("outage.began", now_ms, "", self._me, error, {})
        else:
            away_s = round((now_ms - self._away_since_ms) / 1000, 2)
            self._put("outage.ended", now_ms, "", self._me, "", {"away_s": away_s})

    async def tick(self) -> None:
        """Send what waits; what was sent goes from the line once Redis has answered."""
        while self._waiting:
            some = [self._waiting[at] for at in range(min(AT_ONCE, len(self._waiting)))]
            await self._driver.run(announce(self._namespace, some, SYSTEM_CLOCK.now_ms()))
            for one in some:
                with contextlib.suppress(ValueError):  # pushed out meanwhile
                    self._waiting.remove(one)

    async def last(self) -> None:
        """Send what waits, if Redis answers; there will be no other time."""
        try:
            async with asyncio.timeout(_LAST_S):
                await self.tick()
        except (StoreError, TimeoutError) as error:
            logger.debug("last events are not told", extra={"events": len(self._waiting), "error": str(error)})
