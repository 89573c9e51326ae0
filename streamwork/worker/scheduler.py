"""Fire schedules at their instants, once each, however many processes try (rule 27)."""

from __future__ import annotations

import logging
import random

from streamwork.broker.plans import occurrence, schedules_of
from streamwork.broker.steps import aask
from streamwork.errors import DecodeError
from streamwork.model.schedule import Schedule, decode_schedule, due
from streamwork.service import Service
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.planning import Fired, fire, plan
from streamwork.worker.member import QueueFacts

logger = logging.getLogger(__name__)


class Scheduler(Service):
    """The schedules of one queue; sleeps exactly until the next occurrence, and hears of changes."""

    name = "scheduler"
    # What a lost signal costs at most.
    interval_s = 30.0
    # Those that are not on duty come after the one that is, and then find nothing to do: it spares Redis the attempts.
    STAND_BY_S = (0.05, 0.25)

    def __init__(self, driver: AsyncDriver, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._queue = queue
        self._declared: dict[str, bytes] = {}
        self._is_seeded = True
        self._unreadable: set[str] = set()

    def declare(self, records: dict[str, bytes]) -> None:
        """Take over what the app declares for this queue, by name; it is stored at the next tick."""
        if records != self._declared:
            self._declared, self._is_seeded = dict(records), False
            self.nudge()

    async def tick(self) -> float:
        """Fire what is due; answers how long until the next is."""
        keys = self._queue.keys
        if not self._is_seeded:
            for name, record in self._declared.items():
                await self._driver.run(plan(keys, name, "declare", record))
            self._is_seeded = True
        stored, now_ms = await aask(self._driver, schedules_of(keys))
        wakes: list[int] = []
        for one in stored:
            if one.name in self._declared and one.record != self._declared[one.name]:
                continue  # another version's by now: that one fires it
            schedule = self._read(one.name, one.record)
            if schedule is None or one.is_paused or (schedule.is_declared and one.name not in self._declared):
                continue
            decided = due(schedule, one.mark_ms, now_ms)
            if decided.pass_over is not None:
                await self._driver.run(fire(keys, one.name, one.record, decided.pass_over, Fired(), schedule.overlap))
            for at_ms in decided.fire:
                await self._fire(schedule, one.record, at_ms)
            if decided.next_ms is not None:
                wakes.append(decided.next_ms)
        if any(name not in {one.name for one in stored} for name in self._declared):
            self._is_seeded = False  # FLUSHALL, or someone removed one that stands in code
            return 1.0
        if not wakes:
            return self.interval_s
        stand_by_s = 0.0 if self._queue.on_duty else random.uniform(*self.STAND_BY_S)
        return min(self.interval_s, max(0.001, (min(wakes) - now_ms) / 1000 + 0.001) + stand_by_s)

    async def _fire(self, schedule: Schedule, record: bytes, at_ms: int) -> None:
        answer = await self._driver.run(
            fire(self._queue.keys, schedule.name, record, at_ms, occurrence(schedule, at_ms), schedule.overlap)
        )
        facts = {"schedule": schedule.name, "queue": schedule.queue, "task": schedule.task, "at_ms": at_ms}
        if answer == "running":
            logger.info("schedule passed over: its last run has not ended", extra=facts)
        elif answer == "fired":
            logger.debug("schedule fired", extra=facts)

    def _read(self, name: str, record: bytes) -> Schedule | None:
        try:
            return decode_schedule(record)
        except DecodeError as error:
            if name not in self._unreadable:
                self._unreadable.add(name)
                logger.warning(
                    "a schedule cannot be read here, and is left alone",
                    extra={"schedule": name, "queue": self._queue.keys.queue, "error": str(error)},
                )
            return None
