"""`app.tap` and `app.atap`: every message is read along once, and neither workers nor history nor views notice."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import threading
from typing import ClassVar

import pytest

from streamwork import ConfigError, QueueNotFound, TapGap, TapMessage, UseAsync
from streamwork.broker.stats import queue_stats
from streamwork.broker.steps import ask
from streamwork.config import load
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.member import QueueFacts
from streamwork.worker.upkeep import Maintainer
from tests.apps import faults
from tests.helpers import wait_until


@pytest.fixture
def streamwork_redis_url(server):
    """One of these tests restarts the server."""
    return server.url


@pytest.fixture
def redis_url(server):
    return server.url


@pytest.fixture(autouse=True)
def _no_reader_is_left():
    """A thread that goes on would draw random numbers for its patience, and disturb hypothesis in later tests."""
    yield
    for thread in Heard.threads:
        if thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Ended))
            thread.join(20)
            assert not thread.is_alive()
    Heard.threads.clear()


class Ended(BaseException):
    """What ends a reader between two steps."""


class Heard:
    """A tap that is read on a thread."""

    threads: ClassVar = []

    def __init__(self, app, limit, **options):
        self.found = []
        heard = app.tap(limit=limit, **options)
        self._one_by_one = heard
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.threads.append(self._thread)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(Ended):
            for one in self._one_by_one:
                self.found.append(one)

    @property
    def numbers(self):
        return [one.args[0] for one in self.found if isinstance(one, TapMessage)]

    def end(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.found


@pytest.fixture
def task(send):
    return send.declared(faults.nothing)


def groups(driver, keys, lane="1:"):
    found = driver.run(plain("XINFO", "GROUPS", keys.lane(lane)))
    return sorted(dict(zip(one[::2], one[1::2], strict=True))[b"name"].decode() for one in found)


def maintain(redis_url, namespace, **settings):
    """Let the maintainer look once, as the one on duty."""

    async def main():
        driver = AsyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        queue = QueueFacts(QueueKeys(namespace, "default"))
        queue.on_duty = True
        config = load({name.replace("__", "."): value for name, value in settings.items()}).config
        try:
            await Maintainer(driver, config, queue).tick()
        finally:
            await driver.close()

    asyncio.run(main())


def test_all_that_comes_is_heard_also_of_new_lanes_and_over_a_restart_of_redis(start, app, task, server):
    task.enqueue(-1)
    one, two = Heard(app, 41, group="one"), Heard(app, 41, group="two")
    app.enqueue_many(task.call(number) for number in range(20))
    wait_until(lambda: len(one.found) == len(two.found) == 20, "both to have heard 20")
    task.options(priority=9).enqueue(20)
    wait_until(lambda: one.numbers[-1] == two.numbers[-1] == 20, "both to have heard of the new lane")
    server.stop(signal.SIGKILL)
    server.start()
    app.enqueue_many((task.call(number) for number in range(21, 41)), wait=20)
    assert [m.args[0] for m in one.end()] == [m.args[0] for m in two.end()] == list(range(41))
    start()
    wait_until(lambda: len(list(app.history())) == 42, "the workers to have had them all, too", 20)


def test_a_message_is_told_with_what_workers_get(app, task, namespace):
    task.enqueue(0)
    heard = Heard(app, 1, group="look")
    handle = task.options(priority=9).enqueue(7)
    (message,) = heard.end()
    assert (message.id, message.task, message.args, message.kwargs) == (handle.id, task.name, [7], {})
    assert (message.queue, message.lane, message.tags, message.attempt) == ("default", "3:", (), 1)
    assert message.enqueued_at_ms == int(message.entry.partition("-")[0])


def test_a_retry_comes_again_with_its_attempt(start, app, send, notes):
    start()
    first = send(faults.hold, notes.path, "one")
    heard = Heard(app, 2, group="look", since=60)
    notes.until(1)
    notes.go("one", how="raise")
    assert [(one.id, one.attempt) for one in heard.end()] == [(first.id, 1), (first.id, 2)]
    notes.hold("one")
    notes.go("one")
    first.result(timeout=20)


def test_who_reads_under_one_group_shares_what_comes(app, task):
    task.enqueue(-1)
    readers = [Heard(app, None, group="shared") for _ in range(2)]
    for number in range(60):
        task.enqueue(number)
    wait_until(lambda: sum(len(one.found) for one in readers) == 60, "all to be heard")
    assert sorted(readers[0].numbers + readers[1].numbers) == list(range(60))
    assert app.untap(group="shared") is True


def test_it_goes_on_where_it_stood_and_its_limit_loses_nothing(app, task):
    task.enqueue(-1)
    app.tap(group="again")
    app.enqueue_many(task.call(number) for number in range(10))
    assert [one.args[0] for one in app.tap(group="again", limit=4)] == list(range(4))
    assert [one.args[0] for one in app.tap(group="again", limit=6)] == list(range(4, 10))
    assert app.untap(group="again") is True
    assert app.untap(group="again") is False


def test_both_drivers_hear_the_same_and_the_loop_goes_on(app, task):
    task.enqueue(-1)
    heard = Heard(app, 3, group="sync")

    async def main():
        with pytest.raises(UseAsync):
            app.tap(group="a")
        with pytest.raises(UseAsync):
            app.untap(group="a")
        found = []

        async def follow():
            found.extend([one async for one in app.atap(group="a", limit=3)])

        following = asyncio.create_task(follow())
        await asyncio.sleep(0.3)  # it begins now, and not before it is asked
        for number in range(3):
            await task.aenqueue(number)
        await following
        assert await app.auntap(group="a") is True
        await app.connection.aclose()
        return found

    assert asyncio.run(main()) == heard.end()


def test_nothing_that_counts_or_trims_is_disturbed_by_a_tap_that_does_not_read(
    start, app, task, driver, keys, redis_url, namespace
):
    task.enqueue(0)
    app.tap(group="idle")
    app.enqueue_many(task.call(number) for number in range(1, 200))
    stats = ask(driver, queue_stats(keys))
    assert (stats.waiting, stats.running, stats.lanes[0].has_group) == (200, 0, True)
    start(slots=200)
    wait_until(lambda: len(list(app.history())) == 200, "all to be settled", 20)
    wait_until(lambda: ask(driver, queue_stats(keys)).running == 0, "nothing to be in hand")
    stats = ask(driver, queue_stats(keys))
    assert (stats.waiting, stats.running, stats.succeeded, stats.oldest_ms) == (0, 0, 200, None)
    maintain(redis_url, namespace, keep__history_s=["0.001"])
    assert driver.run(plain("XLEN", keys.lane("1:"))) < 200
    assert groups(driver, keys) == ["tap:idle", "workers"]
    task.enqueue(7).result(timeout=20)
    left = driver.run(plain("XLEN", keys.lane("1:")))
    gap, *messages = app.tap(group="idle", limit=left)
    assert isinstance(gap, TapGap)
    assert (gap.missed, len(messages), gap.lane, gap.why) == (200 - left, left, "1:", "keep.history_s = 0.001")
    assert gap.since_ms <= gap.until_ms <= gap.trimmed_at_ms
    assert messages[-1].args == [7]


def test_work_of_a_dead_worker_is_taken_over_beside_a_tap(start, app, send, notes, driver, keys):
    worker = start()
    held = send(faults.hold, notes.path, "one")
    heard = Heard(app, 1, group="look", since=60)
    notes.until(1)
    assert heard.end()[0].id == held.id
    worker.kill()
    start()
    notes.until(2, within_s=20)
    notes.go("one")
    held.result(timeout=20)
    assert driver.run(plain("XPENDING", keys.lane("1:"), "tap:look"))[0] == 0
    assert app.untap(group="look")


def test_one_that_nobody_has_used_for_a_day_is_removed(app, task, driver, keys, redis_url, namespace):
    task.enqueue(0)
    app.tap(group="left")
    app.tap(group="used")
    maintain(redis_url, namespace)
    assert groups(driver, keys) == ["tap:left", "tap:used", "workers"]
    driver.run(plain("DEL", keys.tap("left")))  # as after a day
    maintain(redis_url, namespace)
    assert groups(driver, keys) == ["tap:used", "workers"]
    assert sorted(driver.run(plain("HKEYS", keys.taps))) == [b"used", b"used 1:"]


def test_one_that_was_removed_under_its_reader_goes_on_where_that_stood(app, task):
    task.enqueue(-1)
    heard = Heard(app, 3, group="look")
    task.enqueue(0)
    wait_until(lambda: heard.numbers == [0], "the first to be heard")
    assert app.untap(group="look") is True
    for number in (1, 2):
        task.enqueue(number)
    heard.end()
    assert heard.numbers == [0, 1, 2]


@pytest.mark.parametrize(
    ("queue", "asked", "error", "text"),
    [
        ("nowhere", {"group": "a"}, QueueNotFound, "no queue 'nowhere'"),
        ("no name", {"group": "a"}, ConfigError, "queue 'no name'"),
        ("default", {"group": "no name"}, ConfigError, "group 'no name'"),
        ("default", {"group": "a", "since": "2h"}, ConfigError, "since='2h'"),
        ("default", {"group": "a", "limit": 0}, ConfigError, "limit=0"),
    ],
)
def test_what_is_wrong_is_refused(app, task, queue, asked, error, text):
    with pytest.raises(error, match=text):
        app.tap(queue, **asked)
