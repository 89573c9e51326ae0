"""Rule 18: a live consumer finds what it lost track of, and takes nothing for lost that is on its way."""

from __future__ import annotations

import asyncio

from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker import reclaimer, selfcheck
from streamwork.worker import worker as worker_module
from streamwork.worker.delivery import QueueSide
from streamwork.worker.embedded import EmbeddedWorker
from tests.apps import faults
from tests.faults.living.kit import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import await_until, body_of, seed
from tests.redis.kit import LANE, deliver


def what_is_on_its_way_is_not_taken_for_lost(url, driver, keys, module=reclaimer):
    (coming,) = deliver(driver, keys, "w1")  # the answer to its read has not arrived

    async def main():
        own, taken = AsyncDriver(Endpoint(url), ALL_SCRIPTS), []
        side = QueueSide(keys, 0)
        side.set_lanes([LANE])
        finder = module.Reclaimer(own, taken.append)
        look = lambda seen: finder.audit(side.lanes, "w1", lambda: 4, lambda *_: False, seen)
        seen = await look(set())
        assert taken == [], "an entry whose read was on its way runs twice"
        assert await look(seen) == set()
        assert [run.entry for run in taken] == [coming.entry]
        await own.close()

    asyncio.run(main())


def test_what_is_on_its_way_is_not_taken_for_lost(redis_url, driver, keys):
    what_is_on_its_way_is_not_taken_for_lost(redis_url, driver, keys)


def test_at_the_first_look_it_would_run_twice(redis_url, driver, keys, wiped):
    module = module_without("streamwork.worker.reclaimer", "two looks")
    must_fail(what_is_on_its_way_is_not_taken_for_lost, redis_url, driver, keys, module, says="runs twice")


def a_live_owner_finds_what_it_never_saw(app, driver, keys, monkeypatch, module=selfcheck, within_s=10):
    monkeypatch.setattr(module, "AUDIT_S", 0.05)
    monkeypatch.setattr(worker_module, "SelfCheck", module.SelfCheck)
    app.task(name=faults.nothing.name)(faults.nothing.function)
    task_id, body = body_of(faults.nothing.name, 1)

    async def main():
        async with EmbeddedWorker(app, {"worker.slots": 2, "liveness.ttl_s": 5, "worker.block_s": 30}) as worker:
            name = worker.worker.name
            first = body_of(faults.nothing.name, 0)
            seed(driver, keys, first)
            await await_until(lambda: driver.run(plain("EXISTS", keys.result(first[0]))), "it reads the lane")
            await await_until(lambda: worker.worker.is_idle, "it waits in a read")
            # A read under its name whose answer nobody hears; in one go, or its own read would get the entry.
            driver.run(plain("XGROUP", "CREATECONSUMER", keys.lane(LANE), "workers", name))
            entry = driver.run(plain("EVAL", LOSE, 1, keys.lane(LANE), body, name))
            assert driver.run(plain("XPENDING", keys.lane(LANE), "workers", entry, entry, 1, name))
            ended = lambda: driver.run(plain("EXISTS", keys.result(task_id)))
            await await_until(ended, "what its owner never saw is found", within_s)

    asyncio.run(main())


LOSE = """
local entry = redis.call('XADD', KEYS[1], '*', 'd', ARGV[1])
redis.call('XREADGROUP', 'GROUP', 'workers', ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
return entry
"""


def test_a_live_owner_finds_what_it_never_saw(app, driver, keys, monkeypatch):
    a_live_owner_finds_what_it_never_saw(app, driver, keys, monkeypatch)


def test_without_an_audit_it_stays_with_it_for_ever(app, driver, keys, monkeypatch, wiped):
    module = module_without("streamwork.worker.selfcheck", "audit")
    must_fail(
        a_live_owner_finds_what_it_never_saw, app, driver, keys, monkeypatch, module, 1, says="never saw is found"
    )
