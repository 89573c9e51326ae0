"""What services cost Redis while there is nothing to do: commands counted, on a server that nobody else uses."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.config import redis_for_tests
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.testing.server import PrivateServer
from streamwork.worker.member import QueueFacts
from streamwork.worker.scheduler import Scheduler
from streamwork.worker.upkeep import Promoter

KEYS = QueueKeys("own", "default")
LATER_MS = 4_000_000_000_000
MANY = 100_000


@pytest.fixture
def own():
    """A driver of a server whose commands only this test counts."""
    with PrivateServer(redis_for_tests()[1]) as server:
        driver = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
        yield driver
        driver.close()


def schedule(own, first, until):
    """Put task messages into due, far in the future, as promote.lua finds them there."""
    for start in range(first, until, 10_000):
        ids = [f"{n:032x}" for n in range(start, min(start + 10_000, until))]
        own.run(plain("ZADD", KEYS.due, *(part for task_id in ids for part in (LATER_MS, task_id))))
        own.run(plain("HSET", KEYS.due_body, *(part for task_id in ids for part in (task_id, b"1:\n1,0,0,1,0\nx"))))


def commands_of_a_tick(own, kind):
    """Return how many commands Redis runs for one tick, those in scripts too."""

    def count():
        rows = own.run(plain("INFO", "commandstats")).decode().splitlines()
        calls = (row.partition("calls=")[2].partition(",")[0] for row in rows if row.startswith("cmdstat_"))
        return sum(map(int, calls))

    async def ticks():
        driver = AsyncDriver(own.endpoint, ALL_SCRIPTS, 10.0)
        try:
            service = kind(driver, QueueFacts(KEYS))
            await service.tick()  # connects, and loads its scripts
            before = count()
            await service.tick()
            return count() - before
        finally:
            await driver.close()

    return asyncio.run(ticks())


@pytest.mark.parametrize("kind", [Promoter, Scheduler])
def test_what_is_due_later_costs_a_tick_nothing(own, kind):
    schedule(own, 0, 100)
    few = commands_of_a_tick(own, kind)
    assert few > 1  # beside the INFO that tells it
    schedule(own, 100, MANY)
    assert own.run(plain("ZCARD", KEYS.due)) == MANY
    assert commands_of_a_tick(own, kind) == few
