"""An app's link to Redis: many calls from a loop, forks at bad moments, and a loop that is never blocked."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading

import pytest

from streamwork import links
from streamwork.app import Streamwork
from streamwork.errors import BodyTooLarge, StoreFull
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import decode_message
from tests.forked import in_child
from tests.redis.kit import full


@pytest.fixture
def small(redis_url, namespace):
    """An app whose messages may have 2,000 bytes, and its task."""
    with Streamwork(namespace, redis_url, {"client.max_body_bytes": 2_000}) as app:

        @app.task
        def note(text: str) -> str:
            return text

        yield app, note


def stored(driver, namespace, queue="default"):
    rows = driver.run(plain("XRANGE", QueueKeys(namespace, queue).lane("1:"), "-", "+"))
    return [decode_message(fields[1]).id for _, fields in rows]


def sent_before(app, calls):
    """Send calls from a loop, one of which is too large; that loop goes on afterwards."""

    async def main():
        with pytest.raises(BodyTooLarge):
            await app.aenqueue_many(calls)
        await asyncio.sleep(0.05)  # what was wrongly begun would be sent now
        await app.connection.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("before", [0, 10, 600])
def test_a_bad_call_among_many_stops_at_the_same_place_on_a_loop_and_on_a_thread(small, driver, namespace, before):
    app, note = small
    calls = [note.call("a")] * before + [note.call("b" * 3_000)] + [note.call("c")] * 10
    with pytest.raises(BodyTooLarge):
        app.enqueue_many(calls)
    on_thread = len(stored(driver, namespace))
    sent_before(app, calls)
    assert len(stored(driver, namespace)) == 2 * on_thread
    assert on_thread == (500 if before == 600 else 0)


def test_many_from_a_loop_are_sent_in_their_order_with_their_entries(small, driver, namespace):
    app, note = small

    async def main():
        calls = [note.options(queue="second" if n % 3 else "default").call(str(n)) for n in range(1_100)]
        handles = await app.aenqueue_many(call for call in calls)
        await app.connection.aclose()
        return handles

    handles = asyncio.run(main())
    for queue in ("default", "second"):
        mine = [handle for handle in handles if handle.queue == queue]
        assert [handle.id for handle in mine] == stored(driver, namespace, queue)
        assert all(handle.entry for handle in mine)
    assert app.connection.known_queues == {"default", "second"}


def test_a_refusal_of_many_is_raised_once_all_are_answered(server):
    app = Streamwork("own", server.url)

    @app.task
    def note(text: str) -> str:
        return text

    async def main():
        left = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))
        with full(app.connection.driver), pytest.raises(StoreFull):
            await app.aenqueue_many([note.call("a")] * 700)
        assert len(await app.aenqueue_many([note.call("a")] * 3)) == 3
        await app.aclose()
        gc.collect()
        return left

    assert asyncio.run(main()) == []


def test_a_child_sends_though_another_thread_held_the_lock_at_the_fork(app):
    @app.task
    def note() -> None: ...

    def child():
        signal.alarm(10)  # one that waits for the lock would do so for ever
        return note.enqueue().id

    held, release = threading.Event(), threading.Event()

    def hold():
        with app.connection._lock:
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        assert len(in_child(child)) == 32
    finally:
        release.set()
        holder.join()


@pytest.mark.parametrize("way", ["aenqueue", "aenqueue_many", "astate", "aresult"])
def test_joining_the_embedded_redis_does_not_hold_the_loop(monkeypatch, namespace, redis_url, tmp_path, way):
    threads = []

    class Joined:
        url = redis_url

        def ensure(self):
            return self.url

        def close(self):
            pass

    def join(config):
        threads.append(threading.current_thread())
        return Joined()

    monkeypatch.setattr(links, "join_configured", join)
    app = Streamwork(namespace, settings={"folder": str(tmp_path)})
    monkeypatch.setattr(app.connection, "config", app.config)

    @app.task
    def note() -> None: ...

    with Streamwork(namespace, redis_url) as other:
        handle = other.call(note.name).enqueue()
    handle._waiting = app.connection
    ways = {
        "aenqueue": note.aenqueue,
        "aenqueue_many": lambda: app.aenqueue_many([note.call()]),
        "astate": handle.astate,
        "aresult": lambda: handle.await_(0),
    }

    async def main():
        await ways[way]()
        await app.aclose()

    assert app.config.url is None
    asyncio.run(main())
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
