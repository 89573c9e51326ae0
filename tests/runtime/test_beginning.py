"""Deliveries with a rate wait for a word from Redis before they begin (rule 28)."""

from __future__ import annotations

import asyncio

from streamwork.store.async_driver import AsyncDriver
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.wire.message import decode_message
from streamwork.worker.beginning import Beginner
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from tests.helpers import await_until
from tests.redis.flowkit import Flow, t
from tests.redis.kit import LANE


def delivered(driver, keys, count):
    """Send messages with a rate, and return them as deliveries of one consumer."""
    flow = Flow(driver, keys)
    flow.send(t(1, 1_000), count=count)
    side = LaneSide(QueueSide(keys, 0), LANE)
    runs = []
    for held in flow.read():
        run = Run(side, held.entry, [b"d", held.body], held.consumer, "server")
        run.message = decode_message(held.body)
        runs.append(run)
    return flow, runs


def test_one_that_comes_in_the_very_moment_the_last_answer_was_taken_begins_too(redis_url, driver, namespace):
    flow, (first, second) = delivered(driver, QueueKeys(namespace, "default"), 2)
    begun = []

    async def main():
        redis = AsyncDriver(Endpoint(redis_url), ALL_SCRIPTS)

        def begin(run):
            begun.append(run)
            if run is first:
                # The loop takes this before it hears that the asking has ended.
                asyncio.get_running_loop().call_soon(beginner.add, second)

        beginner = Beginner(redis, begin, lambda run: None)
        beginner.add(first)
        try:
            await await_until(lambda: len(begun) == 2, "both begin")
        finally:
            await redis.close()

    asyncio.run(main())
    assert begun == [first, second]
    for task_id in flow.ids:
        flow.cancel(task_id)
