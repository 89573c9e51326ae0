"""What keeps a queue in order: promotion of what is due, low marks, counters and history."""

from __future__ import annotations

import logging

from streamwork.broker.info import info, is_nearly_full
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import Config
from streamwork.errors import StoreRejected
from streamwork.model.lane import lane_tags, readable_lanes
from streamwork.service import Service
from streamwork.store import healing, scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.worker.healing import JOURNAL_MARGIN_MS
from streamwork.worker.member import QueueFacts

logger = logging.getLogger(__name__)


class Promoter(Service):
    """Move due task messages to their lanes; sleeps exactly until the next one (rule 26)."""

    name = "promoter"
    BATCH = 200
    # What a lost signal costs at most; a signal is an entry in a stream, so this is for the case that it was trimmed.
    interval_s = 30.0

    def __init__(self, driver: AsyncDriver, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._queue = queue

    async def _learn_lanes(self) -> None:
        # The message itself says where it belongs; the script registers the lane when it makes it.
        keys = self._queue.keys
        ids = await self._driver.run(plain("ZRANGE", keys.due, 0, self.BATCH - 1))
        bodies = await self._driver.run(plain("HMGET", keys.due_body, *ids)) if ids else []
        named = {body.partition(b"\n")[0].decode() for body in bodies if body}
        self._queue.lanes = sorted({*self._queue.lanes, *named})

    async def tick(self) -> float:
        """Promote what is due; answers how long until the next is."""
        done = await self._driver.run(scripts.promote(self._queue.keys, self._queue.lanes, self.BATCH))
        if done.unknown_lane:
            await self._learn_lanes()
            return 0.05
        if done.moved == self.BATCH:
            return 0.0
        if done.next_at_ms is None:
            return self.interval_s
        return min(self.interval_s, max(0.001, (done.next_at_ms - SYSTEM_CLOCK.now_ms()) / 1000 + 0.001))


class Maintainer(Service):
    """Keep each lane's low mark, counters and history, and the journal's age (rules 8, 30-33); only on duty."""

    name = "maintainer"
    interval_s = 20.0
    # While there is something to trim and Redis is nearly full.
    HASTY_S = 1.0
    TRIMMED_AT_ONCE = 10_000

    def __init__(self, driver: AsyncDriver, config: Config, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._history_ms = int(config.keep.history_s * 1000)
        self._queue = queue
        self._is_hasty = False

    async def tick(self) -> float | None:
        """Keep every lane once."""
        if not self._queue.on_duty:
            return 1.0  # who is on duty is decided within a second of the start
        keys, now_ms = self._queue.keys, SYSTEM_CLOCK.now_ms()
        self._say(is_hasty=await self._is_nearly_full())
        oldest_ms = now_ms if self._is_hasty else now_ms - self._history_ms if self._history_ms else 0
        bounds = healing.Bounds(nearly_full_ms=int(3000 * self.interval_s) if self._is_hasty else 0)
        journal_ms, trimmed = oldest_ms, 0
        for lane in await self._lanes():
            kept = await self._driver.run(
                healing.maintain(keys, lane, str(oldest_ms), self.TRIMMED_AT_ONCE, now_ms, bounds)
            )
            trimmed += kept.trimmed
            if kept.first_open:
                # A lost group is restored with the journal from there on.
                journal_ms = min(journal_ms, int(kept.first_open.partition(b"-")[0]) - JOURNAL_MARGIN_MS)
        if journal_ms > 0:
            trimmed += await self._driver.run(
                plain("XTRIM", keys.journal, "MINID", "~", str(journal_ms), "LIMIT", self.TRIMMED_AT_ONCE)
            )
        return self.HASTY_S if self._is_hasty and trimmed else None

    async def _is_nearly_full(self) -> bool:
        try:
            memory = await self._driver.run(info("memory"))
        except StoreRejected:
            return False  # an account that may not ask
        return is_nearly_full(memory)

    def _say(self, *, is_hasty: bool) -> None:
        facts = {"queue": self._queue.keys.queue}
        if is_hasty and not self._is_hasty:
            logger.warning("Redis is nearly full: history is trimmed early, large results are dropped", extra=facts)
        elif self._is_hasty and not is_hasty:
            logger.info("Redis has room again: history and results are kept as configured", extra=facts)
        self._is_hasty = is_hasty

    async def _lanes(self) -> list[str]:
        """Return the lanes that are listed, and those that have counted messages and lost their place in the list."""
        counted: list[bytes] = await self._driver.run(plain("HKEYS", self._queue.keys.added))
        names = {*self._queue.lanes, *(name.decode(errors="replace") for name in counted)}
        return sorted(name for name in names if readable_lanes([name], lane_tags(name)))
