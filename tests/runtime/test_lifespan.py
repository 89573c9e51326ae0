"""The app's lifespan in a worker: one task from its start to its end, and one line where it fails."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import asynccontextmanager

import pytest

from streamwork.worker.lifespan import Lifespan
from tests.helpers import await_until

where = contextvars.ContextVar("where", default="nowhere")


def living(make, main):
    """Run `main(lifespan, broken)`; `broken` lists how often it was said to have ended by itself."""

    async def all_of_it():
        broken = []
        await main(Lifespan(make, lambda: broken.append(1)), broken)

    asyncio.run(all_of_it())


def test_it_is_entered_and_left_in_one_task_whoever_asks():
    seen = []

    @asynccontextmanager
    async def life():
        seen.append(asyncio.current_task())
        async with asyncio.timeout(None):  # as anyio's scopes, it may only be left in its own task
            yield "resources"
        seen.append(asyncio.current_task())

    async def main(lifespan, broken):
        assert await asyncio.create_task(lifespan.enter()) == "resources"
        await asyncio.create_task(lifespan.leave())
        await lifespan.leave()
        assert (seen[0] is seen[1], lifespan.error, broken) == (True, None, [])

    living(life, main)


def test_what_it_sets_is_seen_where_it_was_entered():
    @asynccontextmanager
    async def life():
        where.set("inside")
        yield

    async def main(lifespan, broken):
        await lifespan.enter()
        assert where.get() == "inside"
        await lifespan.leave()

    living(life, main)


def test_what_it_raises_at_the_start_is_raised_there():
    @asynccontextmanager
    async def life():
        raise OSError("no database")
        yield

    async def main(lifespan, broken):
        with pytest.raises(OSError, match="no database"):
            await lifespan.enter()
        await lifespan.leave()
        assert broken == []

    living(life, main)


def test_what_it_raises_at_the_end_is_one_line(caplog):
    @asynccontextmanager
    async def life():
        yield
        raise OSError("too late")

    async def main(lifespan, broken):
        await lifespan.enter()
        await lifespan.leave()
        assert (str(lifespan.error), broken) == ("too late", [])

    living(life, main)
    (record,) = caplog.records
    assert (record.message, record.exc_info) == ("the lifespan raises at its end", None)


def test_one_that_ends_before_its_time_says_so():
    @asynccontextmanager
    async def life():
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            yield

    async def fail():
        raise ValueError("the watcher of the database")

    async def main(lifespan, broken):
        await lifespan.enter()
        await await_until(lambda: broken, "it is broken")
        assert isinstance(lifespan.error, ExceptionGroup)
        await lifespan.leave()

    living(life, main)


def test_a_start_that_is_given_up_is_cancelled():
    ended = []

    @asynccontextmanager
    async def life():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(1)
        yield

    async def main(lifespan, broken):
        entering = asyncio.create_task(lifespan.enter())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait({entering})
        await asyncio.wait_for(lifespan.leave(), 5)
        assert ended == [1]

    living(life, main)


def test_no_lifespan_is_no_task():
    async def main(lifespan, broken):
        assert await lifespan.enter() is None
        await lifespan.leave()
        assert len(asyncio.all_tasks()) == 1

    living(None, main)
