"""`app.history` and `app.ahistory`: what real workers did, told while and after it happens, over a restart of Redis."""

from __future__ import annotations

import asyncio
import signal
import threading
from datetime import UTC, datetime, timedelta

import pytest

from streamwork import ConfigError, HistoryRecord, Limit, QueueNotFound, UseAsync, WhereError
from streamwork.clock import SYSTEM_CLOCK
from tests.apps import faults
from tests.helpers import await_until, wait_until

NOTHING = "tests.apps.faults.nothing"


@pytest.fixture
def streamwork_redis_url(server):
    """One of these tests restarts the server."""
    return server.url


@pytest.fixture
def redis_url(server):
    return server.url


def records(found):
    return [one for one in found if isinstance(one, HistoryRecord)]


def test_what_ran_is_told_with_its_arguments_and_each_attempt_of_it(start, send, app, notes):
    start()
    began_ms = SYSTEM_CLOCK.now_ms()
    held = send(faults.hold, notes.path, "one")
    notes.until(1)
    notes.go("one", how="raise")
    wait_until(lambda: len(notes.runs()) == 5, "five runs")
    assert held.wait(timeout=20)
    found = records(app.history(task=faults.hold, since=datetime.fromtimestamp(began_ms / 1000, UTC)))
    assert [(record.state, record.attempt) for record in found] == [*(("retried", n) for n in range(1, 5)), ("dead", 5)]
    assert {record.id for record in found} == {held.id}
    assert {(record.error_type, record.error_digest) for record in found} == {("ValueError", found[0].error_digest)}
    assert all(record.args == [str(notes.path), "one"] for record in found)
    assert all(began_ms <= r.enqueued_at_ms <= r.started_at_ms <= r.ended_at_ms for r in found)
    assert records(app.history(where="text == 'one'", state="dead")) == found[-1:]
    assert records(app.history(id=held.id, limit=1, reverse=True)) == found[-1:]
    assert records(app.history(after=found[2].cursor)) == found[3:]
    assert records(app.history(until=timedelta(hours=1))) == []


def test_both_drivers_tell_the_same(start, send, app):
    start()
    send.declared(faults.nothing)
    handles = app.enqueue_many(app.tasks[NOTHING].call(number) for number in range(1_200))
    handles[-1].result(timeout=20)
    wait_until(lambda: len(list(app.history())) == 1_200, "all to be settled", 20)
    found = list(app.history(where="number >= 400"))

    async def main():
        with pytest.raises(UseAsync):
            app.history()
        try:
            return [record async for record in app.ahistory(where="number >= 400")]
        finally:
            await app.connection.aclose()

    assert asyncio.run(main()) == found
    assert sorted(record.args[0] for record in found) == list(range(400, 1_200))


def test_who_follows_misses_nothing_over_a_restart_of_redis(start, send, app, server):
    start()
    task = send.declared(faults.nothing)
    heard, aheard = [], []
    first = task.enqueue(0)
    first.result(timeout=20)
    wait_until(lambda: list(app.history()), "the first to be settled")

    def follow():
        heard.extend(record.args[0] for record in app.history(since=3600, follow=True, limit=61))

    async def afollow():
        async for record in app.ahistory(since=3600, follow=True, limit=61):
            aheard.append(record.args[0])  # noqa: PERF401 - one by one, to be seen meanwhile
        await app.connection.aclose()

    threads = [threading.Thread(target=follow), threading.Thread(target=lambda: asyncio.run(afollow()))]
    for thread in threads:
        thread.start()
    wait_until(lambda: heard == aheard == [0], "both to have heard the first")
    app.enqueue_many(task.call(number) for number in range(1, 31))
    wait_until(lambda: len(heard) == len(aheard) == 31, lambda: f"both to hear of 30 more: {len(heard)} {len(aheard)}")
    server.stop(signal.SIGKILL)
    server.start()
    app.enqueue_many((task.call(number) for number in range(31, 61)), wait=20)
    for thread in threads:
        thread.join(30)
    assert sorted(heard) == sorted(aheard) == list(range(61))


def test_a_loop_that_follows_goes_on_with_everything_else(start, send, app):
    start()
    task = send.declared(faults.nothing)
    task.enqueue(1).result(timeout=20)

    async def main():
        heard = []

        async def follow():
            heard.extend([record.args[0] async for record in app.ahistory(follow=True, since=60, limit=3)])

        following = asyncio.create_task(follow())
        for number in (2, 3):
            handle = await task.aenqueue(number)
            assert await handle.aresult(timeout=20) == number
        await following
        cancelled = asyncio.create_task(anext(app.ahistory(follow=True)))
        await asyncio.sleep(0.1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await await_until(lambda: heard == [1, 2, 3], lambda: f"three: {heard}")
        await app.connection.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"sinc": 1}, ConfigError, "did you mean 'since'"), ({"since": "2h"}, ConfigError, "since='2h'"),
        ({"since": 1, "until": 2}, ConfigError, "behind until"), ({"limit": 0}, ConfigError, "limit=0"),
        ({"limit": True}, ConfigError, "limit=True"), ({"state": "failing"}, ConfigError, "state 'failing'"),
        ({"tags": "gpu"}, ConfigError, "tags='gpu'"), ({"id": "x"}, ConfigError, "not a task id"),
        ({"task": 7}, ConfigError, "task=7"), ({"after": "now"}, ConfigError, "after='now'"),
        ({"where": "a ="}, WhereError, "write =="), ({"where": 7}, WhereError, "where=7"),
        ({"where": "numbr == 1", "task": "nothing"}, WhereError, "did you mean 'number'"),
        ({"follow": True, "until": 0}, ConfigError, "leave reverse, until"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_when_it_is_asked(app, send, asked, error, text):
    send.declared(faults.nothing)
    for ask in (app.history, app.ahistory):
        with pytest.raises(error, match=text):
            ask(**asked)


def test_a_queue_that_does_not_exist(app):
    with pytest.raises(QueueNotFound):
        app.history("nowhere")
    with pytest.raises(ConfigError, match="queue 'no name'"):
        app.history("no name")

    async def main():
        with pytest.raises(QueueNotFound):
            await anext(app.ahistory("nowhere"))
        await app.connection.aclose()

    asyncio.run(main())


def test_what_is_cancelled_before_it_ever_ran_is_told_too(app, send, start):
    task = send.declared(faults.nothing)
    scheduled = task.options(delay=3600).enqueue(1)
    assert scheduled.cancel() == scheduled.cancel() == "cancelled"
    (record,) = app.history(id=scheduled.id)
    assert (record.state, record.task, record.attempt, record.lane) == ("cancelled", NOTHING, 1, "1:")
    assert (record.detail, record.enqueued_at_ms, record.started_at_ms) == ("cancelled before it ran", None, None)
    held = [task.options(concurrency=Limit(1, name="one")).enqueue(number) for number in range(2)]
    assert held[1].cancel() == "cancelled"  # it waits in a line
    assert [one.id for one in app.history(state="cancelled")] == [scheduled.id, held[1].id]
    start()
    held[0].result(timeout=20)
