"""A tick of the scheduler: in how many round trips it fires, and when it looks again."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.broker.plans import schedules_of
from streamwork.model.calendar import Every, every
from streamwork.model.schedule import VERSION, Schedule, encode_schedule
from streamwork.store.commands import plain
from streamwork.store.planning import plan
from streamwork.testing.clock import ManualClock
from streamwork.worker import scheduler as module
from streamwork.worker.member import QueueFacts
from streamwork.worker.scheduler import Scheduler
from tests.redis.kit import mark_of, set_mark

DAY_MS = 86_400_000
# Below the longest that a scheduler sleeps.
SOON_MS = 29_000


class Watched:
    """The driver of a loop, which notes the schedules of each round trip that fires some."""

    def __init__(self, driver):
        self._driver = driver
        self.trips = []
        self.after = lambda: None

    async def run(self, command):
        return await self._driver.run(command)

    async def run_all(self, commands):
        answers = await self._driver.run_all(commands)
        fired = [one.args for one in commands if one.script is not None and one.script.name == "fire"]
        if fired:
            self.trips.append(fired)
            self.after()
        return answers


@pytest.fixture
def planned(driver, keys):
    """Put daily schedules into Redis whose last so many occurrences are still to be decided."""

    def put(*names, missed="last", undecided=1, every_ms=DAY_MS):
        for name in names:
            schedule = Schedule(
                VERSION, name, "noop", keys.queue, "1:", b"\x90", None, None, every(every_ms), missed=missed
            )
            driver.run(plan(keys, name, "add", encode_schedule(schedule)))
            last_ms = driver.server_ms() // every_ms * every_ms
            set_mark(driver, keys, name, last_ms - undecided * every_ms)

    return put


@pytest.fixture
def ticked(connected, keys):
    """Tick a scheduler on duty; returns its answer and the watched driver."""

    def tick(after=lambda: None):
        async def main():
            facts, driver = QueueFacts(keys), connected()
            facts.on_duty = True
            watched = Watched(driver)
            watched.after = after
            try:
                return await Scheduler(watched, facts).tick(), watched
            finally:
                await driver.close()

        return asyncio.run(main())

    return tick


def decided(driver, keys):
    """Return how many occurrences were sent."""
    return driver.run(plain("ZCARD", keys.due))


def test_schedules_that_come_together_are_fired_together(driver, keys, planned, ticked):
    planned(*(f"s{n:02}" for n in range(Scheduler.AT_ONCE + 10)))
    _, watched = ticked()
    assert [len(trip) for trip in watched.trips] == [Scheduler.AT_ONCE, 10]
    assert decided(driver, keys) == Scheduler.AT_ONCE + 10


def test_occurrences_of_one_schedule_go_one_after_the_other(driver, keys, planned, ticked):
    """The first may be refused, as by a full Redis; a second that is not would move the mark past it."""
    planned("a", "b", missed="all", undecided=3)
    planned("c")
    _, watched = ticked()
    assert [len(trip) for trip in watched.trips] == [3, 2, 2]
    assert decided(driver, keys) == 7
    assert mark_of(driver, keys, "a") == mark_of(driver, keys, "c")


def test_no_calendar_is_searched_before_what_has_come_is_fired(planned, ticked, monkeypatch):
    """Each search takes longer than sending a message, and many schedules come at one time."""

    def a_day_later(keys):
        stored, now_ms = yield from schedules_of(keys)
        return stored, now_ms + DAY_MS

    def searched(_, at_ms):
        done.append("searched")
        return at_ms + DAY_MS

    planned("a", "b")
    ticked()
    done = []
    monkeypatch.setattr(module, "schedules_of", a_day_later)
    monkeypatch.setattr(Every, "next_after", searched)
    _, watched = ticked(after=lambda: done.append("fired"))
    assert (done[:1], len(watched.trips[0])) == (["fired"], 2)


def test_what_firing_takes_does_not_make_the_next_occurrence_late(planned, ticked, monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "SYSTEM_CLOCK", clock)
    planned("slow", every_ms=SOON_MS)
    # Nearly until the next occurrence, and perhaps beyond: then it looks at once.
    answer, _ = ticked(after=lambda: clock.advance(SOON_MS / 1000 - 0.1))
    assert answer < 0.2
