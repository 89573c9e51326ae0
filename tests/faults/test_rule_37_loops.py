"""Rule 37: each loop and each thread has its own way to Redis, and no call waits for what cannot come."""

from __future__ import annotations

import asyncio
import threading
import warnings
from types import SimpleNamespace

import pytest

from streamwork import connection, context, guards, links, waiting
from streamwork.broker.results import Results
from streamwork.config import Config
from streamwork.context import Context
from streamwork.errors import UseAsync
from streamwork.store import sync_driver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.redis.kit import deliver, outgoing, settle

CALLS = ["enqueue", "result", "state", "cancel", "enqueue_many"]


def blocking_on_a_loop(module, monkeypatch, app):
    monkeypatch.setattr(connection, "refuse_on_loop", module.refuse_on_loop)

    @app.task
    def echo(value: int) -> int:
        return value

    async def main():
        handle = await echo.aenqueue(1)
        calls = {
            "enqueue": lambda: echo.enqueue(2),
            "result": lambda: handle.result(timeout=0.1),
            "state": handle.state,
            "cancel": handle.cancel,
            "enqueue_many": lambda: app.enqueue_many([echo.call(3)]),
        }
        refused = []
        for name, call in calls.items():
            try:
                call()
            except UseAsync:
                refused.append(name)
            except Exception:
                continue
        await app.connection.aclose()
        return refused

    assert asyncio.run(main()) == CALLS, "a blocking call stops every coroutine of its loop"


def test_a_blocking_call_on_a_loop_is_refused(app, monkeypatch):
    blocking_on_a_loop(context, monkeypatch, app)


def test_without_that_it_stops_the_loop(app, monkeypatch):
    module = module_without("streamwork.context", "use_async")
    must_fail("use_async", "a blocking call stops", blocking_on_a_loop, module, monkeypatch, app)


def loop_after_loop(module, server, keys):
    mine = module.Links("own", Config(url=server.url))
    entries, loops = [], []

    async def main():
        driver, sender = mine._loop_side()
        try:
            async with asyncio.timeout(2):
                entries.append(await sender.send(keys, outgoing()))
        except Exception as error:
            entries.append(error)
        await driver.close()

    for _ in range(2):
        loop = asyncio.new_event_loop()
        loops.append(loop)
        loop.run_until_complete(main())
    for loop in loops:
        loop.close()
    assert [isinstance(entry, str) for entry in entries] == [True, True], "the second loop cannot send"


def two_loops_at_once(module, server):
    mine, seen, both = module.Links("own", Config(url=server.url)), [], threading.Barrier(2)

    async def main():
        both.wait(10)
        seen.append(mine._loop_side()[0])
        both.wait(10)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, seen))) == 2, "two loops share one driver"


def test_each_loop_has_a_driver_of_its_own(server, own_keys):
    loop_after_loop(links, server, own_keys)
    two_loops_at_once(links, server)


def test_without_that_the_second_uses_the_firsts(server):
    module = module_without("streamwork.links", "driver_per_loop")
    must_fail("driver_per_loop", "share one driver", two_loops_at_once, module, server)


def connection_of_a_thread(module, server):
    driver, ids = module.SyncDriver(Endpoint(server.url), ()), []
    for _ in range(2):
        thread = threading.Thread(target=lambda: ids.append(driver.run(plain("CLIENT", "ID"))))
        thread.start()
        thread.join()
    assert len(set(ids)) == 2, "two threads speak on one connection"


def test_each_thread_has_a_connection_of_its_own(server):
    connection_of_a_thread(sync_driver, server)


def test_without_that_they_share_one(server):
    module = module_without("streamwork.store.sync_driver", "connection_per_thread")
    must_fail("connection_per_thread", "on one connection", connection_of_a_thread, module, server)


def woken(module, monkeypatch, server, connected, own, keys, within_s=10.0):
    """The loop has nothing else to do, and its look every few seconds is off: only the listener can wake it."""
    monkeypatch.setattr(module, "_ASK_S", 60.0)
    results = Results(lambda: sync_driver.SyncDriver(Endpoint(server.url), ALL_SCRIPTS))
    (delivery,) = deliver(own, keys, "w1")
    handle = SimpleNamespace(id=delivery.task_id)

    async def main():
        driver = connected()
        wait = module.Wait(results, keys, handle, None, 1.0)
        waiter = asyncio.create_task(wait.on_loop(lambda: own, driver))
        while not results.count():
            await asyncio.sleep(0.01)
        await driver.run(plain("PING"))  # behind the waiter's own look at the key
        ender = threading.Timer(0.1, lambda: settle(other, keys, delivery, reply=results.client_id))
        ender.start()
        give_up_s = asyncio.get_running_loop().time() + within_s
        await asyncio.wait({waiter}, timeout=within_s)
        # Woken by that timeout, the loop also sees what it had slept over.
        was_woken = asyncio.get_running_loop().time() < give_up_s - 0.1
        ender.join()
        waiter.cancel()
        await asyncio.wait({waiter})
        await driver.close()
        return was_woken

    other = sync_driver.SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    try:
        assert asyncio.run(main()), "the result is there, and the loop sleeps on"
    finally:
        results.close()
        other.close()


def test_a_loop_that_sleeps_is_woken_by_its_result(monkeypatch, server, connected, own, own_keys):
    woken(waiting, monkeypatch, server, connected, own, own_keys)


def test_without_the_threadsafe_call_it_sleeps_on(monkeypatch, server, connected, own, own_keys):
    module = module_without("streamwork.waiting", "told_to_its_loop")
    args = (module, monkeypatch, server, connected, own, own_keys)
    must_fail("told_to_its_loop", "the loop sleeps on", woken, *args, within_s=2.0)


@pytest.fixture
def inside():
    """Run a function as the body of a task of the queue `default`, on a worker with so many free slots."""

    def run(function, free):
        mine = Context("outer")
        mine.queue, mine.free_slots = "default", lambda _: free
        context.enter_thread(lambda: mine)
        try:
            return function()
        finally:
            context.leave_thread()

    return run


HANDLE = SimpleNamespace(id="x", queue="default")


def refused(module, inside):
    def body():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                module.check_inside_task(HANDLE)
            except UseAsync:
                return True
        return False

    assert inside(body, free=0), "a task waits for one that needs its own slot"
    assert not inside(body, free=1)


def warned(module, inside):
    def body():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            module.check_inside_task(HANDLE)
        return [str(warning.message) for warning in caught]

    texts = inside(body, free=1)
    assert len(texts) == 1, "nobody says what waiting for one's own queue may come to"
    assert "own queue" in texts[0]


WAITS = {"no_slot_no_wait": (refused, "needs its own slot"), "own_queue_warned": (warned, "nobody says")}


@pytest.mark.parametrize("name", WAITS)
def test_a_task_that_waits_for_its_own_queue_is_told(inside, name):
    WAITS[name][0](guards, inside)


@pytest.mark.parametrize("name", WAITS)
def test_without_that_it_is_not(inside, name):
    scenario, match = WAITS[name]
    must_fail(name, match, scenario, module_without("streamwork.guards", name), inside)
