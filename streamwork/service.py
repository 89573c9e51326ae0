"""What repeats: a named duty with `tick()`, run and stopped in one way everywhere.

Tests call `tick`; only production calls `run`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod

from streamwork.errors import StoreError, StoreUnavailable
from streamwork.outage import Outage

logger = logging.getLogger(__name__)

# A tenth of the interval is enough to keep a fleet that started together from ticking together.
_JITTER = 0.1


class Service(ABC):
    """One duty that repeats.

    Attributes:
        name: How logs call it.
        interval_s: Seconds between the end of one tick and the next; > 0.
        outage: Told when Redis is away; None = each service logs so itself.
    """

    name: str = "service"
    interval_s: float = 1.0
    outage: Outage | None = None

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._nudge = asyncio.Event()
        self._failing = False

    @abstractmethod
    async def tick(self) -> float | None:
        """Do the duty once.

        Returns:
            Seconds until the next tick, or None for `interval_s`.
        """

    def nudge(self) -> None:
        """Make the next tick happen now."""
        self._nudge.set()

    def stop(self) -> None:
        """Let `run` return after the tick in progress."""
        self._stopping.set()
        self._nudge.set()

    async def run(self) -> None:
        """Tick until stopped; an error is logged once per outage and never ends the loop."""
        while not self._stopping.is_set():
            self._nudge.clear()
            pause_s = await self._guarded_tick()
            if self._stopping.is_set():
                return
            try:
                async with asyncio.timeout(pause_s):
                    await self._nudge.wait()
            except TimeoutError:
                pass

    async def _guarded_tick(self) -> float:
        try:
            pause_s = await self.tick()
        except StoreError as error:
            if self.outage is not None and isinstance(error, StoreUnavailable):
                self.outage.failed(self._part, error)
            else:
                self._reached()
                if not self._failing:
                    logger.warning("service interrupted", extra={"service": self.name, "error": str(error)})
                self._failing = True
            # Soon again, since a worker may not read before it has beaten; at random, since many do this at once.
            return min(self.interval_s, random.uniform(0.1, 0.8))
        except Exception:
            self._reached()
            logger.exception("service failed", extra={"service": self.name})
            self._failing = True
            return self._jittered(self.interval_s)
        self._reached()
        if self._failing:
            logger.info("service resumed", extra={"service": self.name})
            self._failing = False
        return self._jittered(self.interval_s) if pause_s is None else pause_s

    def _reached(self) -> None:
        if self.outage is not None:
            self.outage.over(self._part)

    def leave(self) -> None:
        """Be no part of an outage any more: this service will not tick again."""
        if self.outage is not None:
            self.outage.forget(self._part)

    @property
    def _part(self) -> str:
        return f"{self.name} {id(self)}"  # there is one for each queue

    @staticmethod
    def _jittered(interval_s: float) -> float:
        return interval_s * (1 - _JITTER * random.random())
