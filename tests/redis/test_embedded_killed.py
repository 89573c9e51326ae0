"""A guardian that was killed, and its server with it: whoever uses the embedded Redis next starts it again."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamwork.app import Streamwork
from streamwork.errors import EmbeddedError, StoreUnavailable
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.sync_driver import SyncDriver
from tests.store.home import eventually, guardian_of, info, kill, open_home

# Long enough for a server to start on two busy cores, and far below the 60 s that a lost answer is asked for.
SOON_S = 8.0


class Watched:
    """What the server is started again for: on which threads, and whether two ever do it at a time."""

    def __init__(self, app):
        self.threads, self.most, self._running = [], 0, 0
        endpoint = app.connection.endpoint
        self._real, endpoint._ensure = endpoint._ensure, self

    def __call__(self):
        self._running += 1
        self.most = max(self.most, self._running)
        self.threads.append(threading.current_thread())
        try:
            return self._real()
        finally:
            self._running -= 1


@pytest.fixture
def shop(monkeypatch):
    """An app on an embedded server of its own, which has served it; (app, its task, how to kill the server)."""
    monkeypatch.delenv("STREAMWORK_URL", raising=False)
    with open_home() as home, Streamwork("shop", settings={"folder": str(home.folder)}) as app:

        @app.task
        def add(n: int) -> int:
            return n

        assert add.enqueue(0).id
        share = app.connection._embedded

        def kill_both():
            pids = guardian_of(share), info(share, "process_id")
            for pid in pids:
                kill(pid)
            eventually(lambda: not set(pids) & set(home.running()))

        yield app, add, kill_both


def test_a_thread_sends_and_waits_on(shop):
    app, add, kill_both = shop
    handle = add.enqueue(1)
    assert handle.wait(0.1) is False  # the listener is connected
    watched = Watched(app)
    kill_both()
    began_s = time.monotonic()
    assert add.enqueue(2).state() == "waiting"
    assert time.monotonic() - began_s < SOON_S
    assert handle.wait(0.1) is False
    assert watched.threads


def test_a_loop_sends_on_and_is_not_held_up(shop):
    app, add, kill_both = shop

    async def main():
        assert (await add.aenqueue(1)).id
        await asyncio.to_thread(kill_both)
        watched = Watched(app)
        began_s = time.monotonic()
        handles = await asyncio.gather(*(add.aenqueue(n) for n in range(20)))
        assert time.monotonic() - began_s < SOON_S
        assert await handles[-1].astate() == "waiting"
        assert watched.threads
        assert threading.main_thread() not in watched.threads
        await app.aclose()

    asyncio.run(main())


def test_many_threads_start_it_once(shop):
    app, add, kill_both = shop
    watched = Watched(app)
    kill_both()
    began_s = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        assert len({handle.id for handle in pool.map(add.enqueue, range(32))}) == 32
    assert time.monotonic() - began_s < SOON_S
    assert watched.most == 1


def test_threads_that_come_while_it_starts_take_that_start_for_theirs():
    starts, release = [], threading.Event()

    def ensure():
        starts.append(threading.current_thread())
        release.wait(10)
        return "unix:///tmp/other.sock?db=0"

    endpoint = Endpoint("unix:///tmp/none.sock?db=0", 1.0, ensure)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(endpoint.revive, ConnectionError("refused")) for _ in range(8)]
        eventually(lambda: len(starts) == 1 and all(answer.running() for answer in answers))
        release.set()
        assert [answer.result(10) for answer in answers] == [True] * 8
    assert len(starts) <= 2  # one who came after the end looks for itself
    assert endpoint.url == "unix:///tmp/other.sock?db=0"


@pytest.mark.parametrize("error", [TimeoutError("no answer"), None])
def test_a_server_that_is_there_or_not_ours_is_not_started(error):
    ours = Endpoint("unix:///tmp/none.sock?db=0", 1.0, pytest.fail)
    others = Endpoint("unix:///tmp/none.sock?db=0", 1.0)
    assert (ours if error else others).revive(error or ConnectionError("refused")) is False


def test_one_that_cannot_be_started_is_unavailable_and_says_why(tmp_path):
    def ensure():
        raise EmbeddedError("no redis-server was found")

    endpoint = Endpoint(f"unix://{tmp_path}/none.sock?db=0", 1.0, ensure)
    with pytest.raises(StoreUnavailable, match="no redis-server was found") as caught:
        SyncDriver(endpoint, ()).run(plain("PING"))
    assert caught.value.maybe_executed is False
    with pytest.raises(StoreUnavailable, match="no redis-server was found"):
        asyncio.run(AsyncDriver(endpoint, ()).run(plain("PING")))
