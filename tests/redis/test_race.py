"""A18: many clients race for one entry, and exactly one of them gets it, round after round."""

from __future__ import annotations

import asyncio
from collections import Counter

from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from tests.redis.flowkit import Flow
from tests.redis.kit import LANE

CLIENTS, ROUNDS = 50, 200


def test_of_fifty_clients_that_read_at_once_one_gets_the_entry(redis_url, driver, keys):
    flow = Flow(driver, keys)

    async def race():
        clients = [AsyncDriver(Endpoint(redis_url), ALL_SCRIPTS) for _ in range(CLIENTS)]
        try:
            for _ in range(ROUNDS):
                flow.send()
                reads = (
                    client.run(scripts.read_new([(keys.lane(LANE),)], f"w{number}", 1, None))
                    for number, client in enumerate(clients)
                )
                yield [number for number, reply in enumerate(await asyncio.gather(*reads)) if reply]
        finally:
            for client in clients:
                await client.close()

    async def rounds():
        return [winners async for winners in race()]

    won = asyncio.run(rounds())
    assert [len(winners) for winners in won] == [1] * ROUNDS
    pending = driver.run(scripts.plain("XPENDING", keys.lane(LANE), "workers", "-", "+", 2 * ROUNDS))
    assert Counter(row[1] for row in pending) == Counter(b"w%d" % winner for (winner,) in won)
    assert {row[3] for row in pending} == {1}  # delivered once
