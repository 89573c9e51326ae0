"""What these tests share: a scenario that must fail without its guard, and services that tick on a real Redis."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.config import load
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.member import QueueFacts
from tests.redis.kit import LANE

CONFIG = load({"liveness.ttl_s": 1.0, "worker.block_s": 0.05}, environ={}).config


def must_fail(scenario, *args, says, **options):
    """See a scenario break its promise, and no other one: `says` is what its own assertion tells."""
    with pytest.raises(AssertionError, match=says):
        scenario(*args, **options)


def owners_of(driver, keys, lane=LANE):
    """Return who has how many entries of a lane."""
    rows = driver.run(plain("XPENDING", keys.lane(lane), "workers", "-", "+", 10_000))
    found = [consumer.decode() for _, consumer, *_ in rows]
    return {owner: found.count(owner) for owner in found}


def facts_of(keys, *lanes):
    """Return what the services of a queue share."""
    queue = QueueFacts(keys)
    queue.lanes = list(lanes or (LANE,))
    queue.on_duty = True
    return queue


def on_loop(url, main):
    """Run `await main(driver)` with a driver of its loop."""

    async def all_of_it():
        driver = AsyncDriver(Endpoint(url), ALL_SCRIPTS)
        try:
            return await main(driver)
        finally:
            await driver.close()

    return asyncio.run(all_of_it())
