"""Rule 38: a worker that is busy or blocked in a read still hears, beats and writes."""

from __future__ import annotations

import asyncio

from streamwork.config import load
from streamwork.errors import StoreError
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker import embedded, keeper
from streamwork.worker.embedded import EmbeddedWorker
from tests.faults.living.kit import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import await_until

CONFIG = load({"liveness.ttl_s": 5.0}, environ={}).config
LONG_ENOUGH_S = 1.5


def a_busy_worker_hears_of_a_cancellation(app, driver, keys, within_s=10.0):
    go = asyncio.Event()

    @app.task(name="busy")
    async def busy() -> None:
        await go.wait()

    async def main():
        await busy.aenqueue()
        async with EmbeddedWorker(app, {"worker.slots": 1, "liveness.ttl_s": 5}) as worker:
            await await_until(lambda: worker.worker.in_hand == 1, "its only slot is taken")
            waiting = await busy.aenqueue()
            await waiting.acancel()
            (queue,) = worker.worker._queues
            try:
                what = "a busy worker hears of a cancellation"
                await await_until(lambda: waiting.id in queue.cancelled, what, within_s)
            finally:
                go.set()
            await await_until(lambda: driver.run(plain("EXISTS", keys.result(waiting.id))), "it ends")
            assert await waiting.astate() == "cancelled"
        await app.aclose()

    asyncio.run(main())


def test_a_busy_worker_hears_of_a_cancellation(app, driver, keys):
    a_busy_worker_hears_of_a_cancellation(app, driver, keys)


def test_without_a_listener_it_does_not(app, driver, keys, wiped, monkeypatch):
    module = module_without("streamwork.worker.keeper", "control")
    monkeypatch.setattr(embedded, "Keeper", module.Keeper)
    must_fail(a_busy_worker_hears_of_a_cancellation, app, driver, keys, LONG_ENOUGH_S, says="hears of a cancellation")


def it_is_heard_while_it_listens(url, driver, keys, module=keeper):
    async def main():
        make = lambda deadline_s: AsyncDriver(Endpoint(url), ALL_SCRIPTS, deadline_s)
        keeping = module.Keeper(keys.namespace, CONFIG, [keys.queue], make, "supervisor")
        await keeping.start()
        try:
            listens = lambda: b"cmd=xread " in driver.run(plain("CLIENT", "LIST"))
            await await_until(listens, "it waits for signals")
            await keeping.driver.run(plain("PING"))
        except StoreError as error:
            raise AssertionError(f"what the supervisor has to say waits for a signal: {error}") from error
        finally:
            await keeping.stop()

    asyncio.run(main())


def test_a_supervisor_is_heard_while_it_listens(redis_url, driver, keys):
    it_is_heard_while_it_listens(redis_url, driver, keys)


def test_over_one_connection_its_listener_holds_it_up(redis_url, driver, keys, wiped):
    module = module_without("streamwork.worker.keeper", "control connection")
    must_fail(it_is_heard_while_it_listens, redis_url, driver, keys, module, says="waits for a signal")


def it_writes_while_it_reads(app, driver, keys, within_s=10.0):
    @app.task(name="quick")
    async def quick() -> None:
        await asyncio.sleep(0.1)  # by now the reader waits in its next read

    async def main():
        async with EmbeddedWorker(app, {"worker.slots": 2, "liveness.ttl_s": 5, "worker.block_s": 2.5}):
            handle = await quick.aenqueue()
            what = "what has ended is written while a read is blocked"
            await await_until(lambda: driver.run(plain("EXISTS", keys.result(handle.id))), what, within_s)
        await app.aclose()

    asyncio.run(main())


def test_it_writes_while_it_reads(app, driver, keys):
    it_writes_while_it_reads(app, driver, keys)


def test_over_one_connection_a_read_holds_the_writes_up(app, driver, keys, wiped, monkeypatch):
    module = module_without("streamwork.worker.worker", "reading connection")
    monkeypatch.setattr(embedded, "Worker", module.Worker)
    must_fail(it_writes_while_it_reads, app, driver, keys, LONG_ENOUGH_S, says="while a read is blocked")
