"""`EmbeddedWorker`: a worker on a program's own loop, registered while it runs and gone without a trace."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from streamwork import ConfigError, State, StoreUnavailable, Streamwork
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.worker.embedded import EmbeddedWorker
from tests.helpers import await_until, state_of


@pytest.fixture
def keys(namespace):
    return QueueKeys(namespace, "default")


def test_it_works_while_its_block_lasts(app, driver, keys):
    @app.task
    async def double(n: int) -> int:
        return 2 * n

    @app.task
    def triple(n: int) -> int:
        return 3 * n

    async def main():
        async with EmbeddedWorker(app, {"worker.slots": 4}) as embedded:
            assert state_of(driver, keys).consumers == {embedded.worker.name}
            handles = [await task.aenqueue(n) for n in range(10) for task in (double, triple)]
            results = [await handle.aresult(timeout=10) for handle in handles]
        assert results == [factor * n for n in range(10) for factor in (2, 3)]
        await app.aclose()

    asyncio.run(main())
    left = state_of(driver, keys)
    assert (left.backlog, left.consumers, left.counts) == (0, set(), {"succeeded": 20})


def test_leaving_the_block_lets_what_runs_end_and_reads_no_more(app, driver, keys):
    began = asyncio.Event()

    @app.task
    async def slow() -> str:
        began.set()
        await asyncio.sleep(0.2)
        return "done"

    async def main():
        async with EmbeddedWorker(app, {"worker.slots": 1}):
            first, second = await slow.aenqueue(), await slow.aenqueue()
            await asyncio.wait_for(began.wait(), 10)
        assert await first.aresult(timeout=1) == "done"
        assert await second.astate() == State.WAITING
        await app.aclose()

    asyncio.run(main())
    assert state_of(driver, keys).backlog == 1


def test_stopping_now_gives_back_without_counting_an_attempt(app, driver, keys):
    runs = []

    @app.task
    async def hang() -> str:
        runs.append(1)
        if len(runs) == 1:
            await asyncio.sleep(3600)
        return "done"

    async def main():
        async with EmbeddedWorker(app) as embedded:
            handle = await hang.aenqueue()
            await await_until(lambda: runs, "it runs")
            await embedded.stop(now=True)
        left = state_of(driver, keys)
        assert (left.returned, left.consumers, left.counts) == ({"1:"}, set(), {})
        async with EmbeddedWorker(app):
            assert await handle.aresult(timeout=10) == "done"
        await app.aclose()

    asyncio.run(main())
    (record,) = state_of(driver, keys).journal
    assert record.attempt == 1


def test_a_fenced_worker_goes_on_under_another_name(app, driver, keys):
    began, go_on = asyncio.Event(), asyncio.Event()

    @app.task
    async def wait() -> None:
        began.set()
        await go_on.wait()

    @app.task
    async def ping() -> str:
        return "pong"

    async def main():
        async with EmbeddedWorker(app, {"liveness.ttl_s": 0.5}) as embedded:
            before = embedded.worker.name
            await wait.aenqueue()
            await asyncio.wait_for(began.wait(), 10)
            # What a reaper does to a consumer whose liveness had lapsed.
            driver.run(plain("HDEL", keys.consumers, before))
            driver.run(plain("DEL", keys.alive(before)))
            await await_until(lambda: embedded.worker.name != before, "it takes another name")
            assert await (await ping.aenqueue()).aresult(timeout=10) == "pong"
            assert state_of(driver, keys).consumers == {embedded.worker.name}
            go_on.set()
            await await_until(lambda: embedded.worker.is_idle, "the late outcome is written")
        await app.aclose()

    asyncio.run(main())


def test_a_lifespan_that_raises_leaves_nothing_behind(app, driver, keys):
    @app.task
    async def noop() -> None: ...

    @app.lifespan
    @asynccontextmanager
    async def broken():
        raise OSError("no database")
        yield

    async def main():
        with pytest.raises(OSError, match="no database"):
            async with EmbeddedWorker(app):
                pytest.fail("it started")
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert state_of(driver, keys).consumers == set()


def test_a_redis_that_is_down_and_a_bad_setting_are_said_at_once():
    app = Streamwork("nowhere", "redis://127.0.0.1:1/0")

    @app.task
    async def noop() -> None: ...

    async def main():
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
            async with EmbeddedWorker(app):
                pytest.fail("it started")
        with pytest.raises(ConfigError, match=r"did you mean worker\.slots"):
            EmbeddedWorker(app, {"worker.slot": 1})

    asyncio.run(main())
