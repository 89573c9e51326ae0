"""Fire schedules at their instants, once each, however many processes try (rule 27)."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from itertools import zip_longest

from streamwork.broker.plans import Stored, occurrence, schedules_of
from streamwork.broker.steps import aask
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import DecodeError
from streamwork.model.calendar import following
from streamwork.model.schedule import ON_TIME_MS, Due, Schedule, decode_schedule, due
from streamwork.service import Service
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import Command
from streamwork.store.planning import Fired, fire, plan
from streamwork.worker.member import QueueFacts

logger = logging.getLogger(__name__)

# A schedule, the instant, and what decides it.
_Occurrence = tuple[Schedule, int, Command[str]]


class Scheduler(Service):
    """The schedules of one queue; sleeps exactly until the next occurrence, and hears of changes."""

    name = "scheduler"
    # What a lost signal costs at most.
    interval_s = 30.0
    # Those that are not on duty come after the one that is, and then find nothing to do: it spares Redis the attempts.
    STAND_BY_S = (0.05, 0.25)
    # Some milliseconds of Redis.
    AT_ONCE = 50

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
        looked_at_ms = SYSTEM_CLOCK.steady_ms()
        decided = list(self._decided(stored, now_ms))
        await self._fire([self._line(*one) for one in decided])
        wakes = [of.next_ms for _, _, of in decided if of.next_ms is not None]
        for schedule, _, of in decided:
            if of.next_ms is not None:
                following(schedule.calendar, of.next_ms)  # what will be asked then is known by then
        if any(name not in {one.name for one in stored} for name in self._declared):
            self._is_seeded = False  # FLUSHALL, or someone removed one that stands in code
        if not self._is_seeded:
            return 1.0
        if not wakes:
            return self.interval_s
        stand_by_s = 0.0 if self._queue.on_duty else random.uniform(*self.STAND_BY_S)
        # Firing took time, too, and the next occurrence is not to be late by that.
        left_ms = min(wakes) - now_ms - (SYSTEM_CLOCK.steady_ms() - looked_at_ms)
        return min(self.interval_s, max(0.001, left_ms / 1000 + 0.001) + stand_by_s)

    def _decided(self, stored: list[Stored], now_ms: int) -> Iterator[tuple[Schedule, bytes, Due]]:
        """Yield the schedules that this process may fire, as they are stored, and what is to be decided of them."""
        for one in stored:
            schedule = self._mine(one, now_ms)
            if schedule is None:
                continue
            try:
                yield schedule, one.record, due(schedule, one.mark_ms, now_ms)
            except Exception as error:  # noqa: BLE001 - such as a zone that this machine does not have
                self._left_alone(one.name, error)

    def _line(self, schedule: Schedule, record: bytes, decided: Due) -> Iterator[_Occurrence]:
        """Yield what is to be decided of a schedule, oldest first; messages are made when they are asked for."""
        keys, name, overlap = self._queue.keys, schedule.name, schedule.overlap
        if decided.pass_over is not None:
            yield schedule, decided.pass_over, fire(keys, name, record, decided.pass_over, Fired(), overlap)
        for at_ms in decided.fire:
            yield schedule, at_ms, fire(keys, name, record, at_ms, occurrence(schedule, at_ms), overlap)

    async def _fire(self, lines: list[Iterator[_Occurrence]]) -> None:
        """Decide occurrences, those of many schedules in one round trip.

        Never two of one schedule: where the first is refused and the second is not, the mark would go past the first.
        """
        for turn in zip_longest(*lines):
            side_by_side = [one for one in turn if one is not None]
            for begin in range(0, len(side_by_side), self.AT_ONCE):
                chunk = side_by_side[begin : begin + self.AT_ONCE]
                answers = await self._driver.run_all([command for _, _, command in chunk])
                for (schedule, at_ms, _), answer in zip(chunk, answers, strict=True):
                    self._told(schedule, at_ms, answer)

    def _told(self, schedule: Schedule, at_ms: int, answer: str) -> None:
        facts = {"schedule": schedule.name, "queue": schedule.queue, "task": schedule.task, "at_ms": at_ms}
        if answer in ("running", "fired"):
            type_ = "schedule.fired" if answer == "fired" else "schedule.passed_over"
            occurrence = {"schedule": schedule.name, "task": schedule.task, "occurrence_ms": at_ms}
            self._queue.tell(type_, queue=schedule.queue, **occurrence)
        if answer == "running":
            logger.info("schedule passed over: its last run has not ended", extra=facts)
        elif answer == "fired":
            logger.debug("schedule fired", extra=facts)

    def _mine(self, one: Stored, now_ms: int) -> Schedule | None:
        """Return a stored schedule if this process may fire it."""
        if one.is_paused or not one.mark_ms:
            return None
        try:
            schedule = decode_schedule(one.record)
        except DecodeError as error:
            self._left_alone(one.name, error)
            return None
        declared = self._declared.get(one.name)
        if schedule.is_declared and declared is None:
            return None  # other code declares it, or did
        if declared is not None and one.record != declared:
            # Another version's by now, which fires it; where nobody does, that one is gone, and ours is stored anew.
            self._is_seeded = self._is_seeded and now_ms - one.mark_ms < _abandoned_ms(schedule, one.mark_ms)
            return None
        return schedule

    def _left_alone(self, name: str, error: Exception) -> None:
        if name not in self._unreadable:
            self._unreadable.add(name)
            logger.warning(
                "a schedule cannot be read here, and is left alone",
                extra={"schedule": name, "queue": self._queue.keys.queue, "error": str(error)},
            )


def _abandoned_ms(schedule: Schedule, mark_ms: int) -> int:
    """Return how old a mark is when nobody can be there that fires the schedule."""
    try:
        upcoming = schedule.calendar.next_after(mark_ms)
    except Exception:  # noqa: BLE001 - who cannot read it cannot fire it
        return 0
    return ON_TIME_MS + (0 if upcoming is None else upcoming - mark_ms)
