"""A consumer group that is lost, made anew and restored, as reader and restorer would."""

from __future__ import annotations

import asyncio

from streamwork.store import healing, scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.healing import Restorer
from streamwork.worker.member import QueueFacts
from tests.redis.kit import (
    LANE,
    deliveries,
)


def heal(driver, keys):
    return driver.run(healing.heal(keys, LANE, 1))


def destroy(driver, keys):
    assert driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "workers")) == 1


def note(driver, keys):
    return driver.run(plain("HGET", keys.restoring, LANE))


def maintain(driver, keys, oldest="0"):
    return driver.run(healing.maintain(keys, LANE, oldest, 1000, 1))


def restored(url, keys, ticks=1, on_duty=True, between=None):
    """Let the restorer on duty tick."""

    async def main():
        driver = AsyncDriver(Endpoint(url), ALL_SCRIPTS)
        queue = QueueFacts(keys)
        queue.on_duty = on_duty
        restorer = Restorer(driver if between is None else Between(driver, between), queue)
        for _ in range(ticks):
            await restorer.tick()
        await driver.close()

    asyncio.run(main())


class Between:
    """A driver before whose restore something else happens."""

    def __init__(self, driver, what):
        self._driver = driver
        self._what = what

    async def run(self, command):
        if command.script is healing.RESTORE:
            self._what()
        return await self._driver.run(command)


def adopt(driver, keys, consumer="w2", most=10_000):
    rows = driver.run(scripts.adopt(keys, LANE, consumer, most))
    found = deliveries([(row.entry, row.fields) for row in rows], LANE, consumer)
    return [d._replace(count=row.delivered) for d, row in zip(found, rows, strict=True)]
