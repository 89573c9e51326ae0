"""Results: every waiter hears of the end, whenever it began to wait and whatever happens to the listener."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
import time
from datetime import UTC, datetime

import pytest

from streamwork.app import Streamwork
from streamwork.broker import results as results_room
from streamwork.broker.results import Results
from streamwork.errors import ResultGone, ResultTimeout, StoreUnavailable
from streamwork.model.pausing import held_score
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.wire.codec import pack
from streamwork.wire.message import Attempt, decode_message, decode_result, encode_attempt
from tests.forked import in_child
from tests.helpers import wait_until
from tests.redis.kit import calls_of, deliveries, end, later

NEVER_S = 0.3


class Waiting:
    """A client that sends and waits on a server of its own, and the worker that ends what it sent."""

    def __init__(self, server):
        self.server = server
        self.app = Streamwork("own", server.url)
        self.driver = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
        self.keys = self.app.connection.keys("default")

        @self.app.task
        def echo(value: int) -> int:
            return value

        self.echo = echo

    def finish(self, count=None, op="S", keep_ms=60_000, value=None, keys=None):
        """End what waits on the lanes, as a worker would; returns how many."""
        keys, done = keys or self.keys, 0
        for lane in (name.decode() for name in self.driver.run(plain("HKEYS", keys.lanes))):
            reply = self.driver.run(scripts.read_new([(keys.lane(lane),)], "w1", count or 10_000, None))
            held = deliveries(reply[0][1], lane, "w1") if reply else []
            for start in range(0, len(held), 500):
                chunk = []
                for delivery in held[start : start + 500]:
                    message = decode_message(delivery.body)
                    payload = bytes(message.args)[1:] if value is None else value
                    item = end(keys, delivery, op, keep_ms=keep_ms, reply=message.reply_to, value=payload)
                    chunk.append(item)
                assert self.driver.run(scripts.settle(keys, "w1", chunk)) == []
            done += len(held)
        return done

    @property
    def results(self):
        return self.app.connection.results

    def listener(self):
        """Return the connection of the listener, once it reads."""

        def look():
            for line in self.driver.run(plain("CLIENT", "LIST")).decode().splitlines():
                facts = dict(word.partition("=")[::2] for word in line.split())
                if facts["cmd"] == "xread" and "b" in facts["flags"]:
                    return int(facts["id"])
            return None

        return wait_until(look, "the listener to read")

    def close(self):
        self.app.close()
        self.driver.close()


_threads_before = []


@pytest.fixture(autouse=True)
def other_listeners():
    """Apps of earlier tests in this process may still listen; theirs are not counted."""
    _threads_before[:] = threading.enumerate()


def listeners():
    """The listener threads that this test has started."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == "streamwork-results" and thread not in _threads_before
    ]


@pytest.fixture
def waiting(server):
    waiting = Waiting(server)
    yield waiting
    waiting.close()


def is_waited_for(waiting, count=1):
    wait_until(lambda: sum(len(w) for _, w in waiting.results._waiters.values()) >= count, f"{count} waiters")


@pytest.fixture
def long_reads(monkeypatch):
    """Reads of a minute, and no second look: what is seen before that was told or interrupted."""
    monkeypatch.setattr(results_room, "LOOK_AGAIN_S", 600.0)
    monkeypatch.setattr(results_room, "BLOCK_MS", 60_000)


def test_who_waits_before_the_end_hears_of_it_at_once(long_reads, waiting):
    handle = waiting.echo.enqueue(7)
    answer = later(handle.result, 10)
    is_waited_for(waiting)
    waiting.listener()
    assert waiting.finish() == 1
    assert answer() == 7


def test_who_comes_after_the_end_finds_it(waiting):
    handle = waiting.echo.enqueue(7)
    waiting.finish()
    assert handle.result(timeout=1) == 7
    assert handle.result(timeout=1) == 7


def test_an_end_before_the_first_wait_of_the_process_is_found_also_without_a_key(waiting):
    first, second = waiting.echo.enqueue(1), waiting.echo.enqueue(2)
    waiting.finish(count=1)
    assert first.result(timeout=1) == 1
    waiting.finish(keep_ms=0)
    assert second.result(timeout=2) == 2


def late(handle):
    """Return what is said of a message that did not end in time; threads and loops say the same."""
    with pytest.raises(ResultTimeout) as caught:
        handle.result(timeout=0.01)

    async def main():
        with pytest.raises(ResultTimeout) as caught:
            await handle.aresult(timeout=0.01)
        await handle._waiting.aclose()
        return str(caught.value)

    assert asyncio.run(main()) == str(caught.value)
    return str(caught.value).partition(" did not end within 0.01 s")[2]


def test_what_is_late_is_told_where_it_is(waiting):
    keys, driver = waiting.keys, waiting.driver
    handle = waiting.echo.options(tags={"gpu"}).enqueue(1)
    missing = "no live worker offers tags {gpu} on queue default: start one with streamwork worker --tags gpu"
    assert late(handle) == f": it waits, and {missing}"
    driver.run(plain("HSET", keys.consumers, "w1", '{"tags": ["gpu", "big"]}'))
    driver.run(plain("SET", keys.alive("w1"), "1", "PX", 60_000))
    assert late(handle) == ": it waits for a free slot"
    driver.run(scripts.read_new([(keys.lane(handle.lane),)], "w1", 1, None))
    assert late(handle) == ": it is running, and goes on"
    driver.run(plain("ZADD", keys.due, 9_999_999_999_999, handle.id))
    assert late(handle) == ": it is due at 2286-11-20 17:46:39 UTC"


def test_what_is_late_is_told_when_it_is_due(waiting):
    keys, driver = waiting.keys, waiting.driver
    at = datetime(2199, 12, 1, 9, 0, 7, tzinfo=UTC)
    handle = waiting.echo.options(run_at=at).enqueue(1)
    due = "it is due at 2199-12-01 09:00:07 UTC"
    assert late(handle) == f": {due}"
    lane, first, body = driver.run(plain("HGET", keys.due_body, handle.id)).split(b"\n", 2)
    for past, said in (
        (Attempt(attempt=3), f"{due}, for run 3"),
        (Attempt(deferrals=2), f"no worker that was offered it knows the task; {due}, to be offered again"),
    ):
        driver.run(plain("HSET", keys.due_body, handle.id, b"\n".join((lane, encode_attempt(past).encode(), body))))
        assert late(handle) == f": {said}"
    driver.run(plain("HSET", keys.due_body, handle.id, b"\n".join((lane, first, body))))
    driver.run(plain("ZADD", keys.due, 1_000_000_000_000, handle.id))
    assert late(handle) == (
        ": it was due at 2001-09-09 01:46:40 UTC, and nobody sends it on: start a worker with streamwork worker"
    )
    driver.run(plain("ZADD", keys.due, held_score(waiting.echo.name), handle.id))
    assert late(handle).startswith(": it is set aside until its task is resumed")


def test_a_redis_that_is_away_does_not_hold_up_who_is_told_that_the_time_is_up(waiting):
    handle = waiting.echo.enqueue(1)
    assert handle.wait(0.01) is False
    os.kill(waiting.server.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert waiting.app.connection.why_late(handle) == ""
        assert time.monotonic() - begun < 5
    finally:
        os.kill(waiting.server.pid, signal.SIGCONT)
    assert "it waits" in waiting.app.connection.why_late(handle)


@pytest.mark.parametrize("timeout_s", [0, 0.05, 0.3])
def test_a_timeout_is_honoured_and_leaves_no_waiter(waiting, timeout_s):
    handle = waiting.echo.enqueue(7)
    with pytest.raises(ResultTimeout):
        handle.result(timeout=0)  # the listener's start is not what is measured
    begun = time.monotonic()
    with pytest.raises(ResultTimeout, match=r"within 0\.\d+ s: it waits, and no live worker reads queue default: "):
        handle.result(timeout=timeout_s)
    assert timeout_s <= time.monotonic() - begun < timeout_s + 1
    assert waiting.results._waiters == {}
    waiting.finish()
    assert handle.result(timeout=5) == 7


def test_two_hundred_threads_and_three_thousand_coroutines_wait_on_one_listener(waiting):
    handles = waiting.app.enqueue_many(waiting.echo.call(n) for n in range(3200))
    threads = [later(handle.result, 30) for handle in handles[:200]]

    async def main():
        loop = asyncio.get_running_loop()
        waiters = [asyncio.ensure_future(handle.aresult(timeout=30)) for handle in handles[200:]]
        await asyncio.sleep(0)
        finishing = loop.run_in_executor(None, lambda: (is_waited_for(waiting, 3200), waiting.finish()))
        answers = await asyncio.gather(*waiters)
        await finishing
        await waiting.app.connection.aclose()
        return answers

    assert asyncio.run(main()) == list(range(200, 3200))
    assert [answer(30) for answer in threads] == list(range(200))
    assert waiting.results._waiters == {}
    assert len(listeners()) == 1


def test_many_who_wait_for_one_all_hear(waiting):
    handle = waiting.echo.enqueue(7)
    answers = [later(handle.result, 10) for _ in range(30)]
    is_waited_for(waiting, 30)
    waiting.finish()
    assert [answer() for answer in answers] == [7] * 30


def test_waiting_costs_no_commands(waiting):
    handles = waiting.app.enqueue_many(waiting.echo.call(n) for n in range(50))
    answers = [later(handle.result, 20) for handle in handles]
    is_waited_for(waiting, 50)
    waiting.listener()
    before = calls_of(waiting.driver, "get"), calls_of(waiting.driver, "xread")
    waiting.finish()
    assert [answer() for answer in answers] == list(range(50))
    assert calls_of(waiting.driver, "get") - before[0] <= 1 + 50  # the worker's own chunk looks for nothing
    assert calls_of(waiting.driver, "xread") - before[1] <= 5


@pytest.mark.parametrize("size", [4000, 5000, 200_000])
def test_results_of_any_size_arrive(waiting, size):
    @waiting.app.task
    def text(value: int) -> str:
        return "x" * value

    handle = text.enqueue(size)
    answer = later(handle.result, 10)
    is_waited_for(waiting)
    waiting.listener()
    waiting.finish(value=pack("x" * size))
    assert answer() == "x" * size


def test_large_results_that_nobody_waits_for_are_not_fetched(waiting):
    @waiting.app.task
    def text(value: int) -> str:
        return "x" * value

    handles = [text.enqueue(n) for n in range(20)]
    answer = later(text.enqueue(20).result, 10)
    is_waited_for(waiting)
    waiting.listener()
    before = calls_of(waiting.driver, "get")
    waiting.finish(value=pack("x" * 10_000))
    assert answer() == "x" * 10_000
    assert calls_of(waiting.driver, "get") - before == 1
    assert not waiting.results._recent
    assert handles[0].result(timeout=5) == "x" * 10_000


def test_a_result_that_is_not_kept_and_too_large_to_ride_along_is_gone(waiting):
    handle = waiting.echo.enqueue(7)
    answer = later(handle.result, 10)
    is_waited_for(waiting)
    waiting.listener()
    waiting.finish(keep_ms=0, value=b"x" * 5000)
    with pytest.raises(ResultGone):
        answer()


def test_a_killed_listener_connection_is_replaced(waiting):
    handle = waiting.echo.enqueue(7)
    answer = later(handle.result, 20)
    first = waiting.listener()
    for _ in range(3):
        waiting.driver.run(plain("CLIENT", "KILL", "ID", waiting.listener()))
    assert waiting.listener() != first
    waiting.finish()
    assert answer() == 7


def test_an_end_while_the_listener_is_away_is_found_when_it_is_back(waiting, monkeypatch):
    monkeypatch.setattr(results_room, "LOOK_AGAIN_S", 1000)  # so that only the look after a reconnect can find it
    handles = [waiting.echo.enqueue(n) for n in range(5)]
    answers = [later(handle.result, 20) for handle in handles]
    is_waited_for(waiting, 5)
    number = waiting.listener()
    waiting.driver.run_all(
        [
            plain("MULTI"),
            plain("CLIENT", "KILL", "ID", number),
            plain("DEL", waiting.keys.reply(waiting.results.client_id)),
            plain("EXEC"),
        ]
    )
    waiting.finish()
    assert [answer() for answer in answers] == list(range(5))


def test_a_restarted_server_is_found_again(start_server):
    server = start_server("--appendonly", "yes", "--appendfsync", "always")
    waiting = Waiting(server)
    try:
        handles = [waiting.echo.enqueue(n) for n in range(4)]
        answers = [later(handle.result, 20) for handle in handles]
        is_waited_for(waiting, 4)
        waiting.finish(count=2)
        assert sorted([answers[0](), answers[1]()]) == [0, 1]
        server.stop(signal.SIGKILL)
        server.start()
        waiting.driver.close()
        waiting.finish()
        assert sorted([answers[2](), answers[3]()]) == [2, 3]
    finally:
        waiting.close()


def test_a_deleted_reply_stream_is_made_again_and_costs_seconds_not_the_result(waiting, monkeypatch):
    monkeypatch.setattr(results_room, "LOOK_AGAIN_S", 0.2)
    monkeypatch.setattr(results_room, "BLOCK_MS", 200)
    first, second = waiting.echo.enqueue(1), waiting.echo.enqueue(2)
    answers = [later(handle.result, 20) for handle in (first, second)]
    is_waited_for(waiting, 2)
    waiting.listener()
    reply = waiting.keys.reply(waiting.results.client_id)
    waiting.driver.run(plain("DEL", reply))
    waiting.finish(count=1)
    assert answers[0]() == 1
    wait_until(lambda: waiting.driver.run(plain("EXISTS", reply)), "the stream to be there again")
    assert 0 < waiting.driver.run(plain("PTTL", reply)) <= results_room.REPLY_LIFE_MS
    waiting.finish(keep_ms=0)  # only the stream tells of this one
    assert answers[1]() == 2


def test_garbage_in_the_reply_stream_stops_nobody(waiting):
    handle = waiting.echo.enqueue(7)
    answer = later(handle.result, 10)
    is_waited_for(waiting)
    waiting.listener()
    reply = waiting.keys.reply(waiting.results.client_id)
    for fields in (("x", "y"), ("i", b"\xff\xfe", "v", "z"), ("i", "a"), ("v", "b")):
        waiting.driver.run(plain("XADD", reply, "*", *fields))
    waiting.finish()
    assert answer() == 7


def test_a_waiter_that_raises_does_not_silence_the_others(waiting):
    bad, good = waiting.echo.enqueue(1), waiting.echo.enqueue(2)
    waiting.results.watch(waiting.driver, waiting.keys)

    def raising(record):
        raise RuntimeError("Event loop is closed")

    heard = queue.SimpleQueue()
    waiting.results.wait(waiting.keys, bad.id, raising)
    waiting.results.wait(waiting.keys, bad.id, heard.put)
    waiting.results.wait(waiting.keys, good.id, heard.put)
    waiting.finish()
    assert {decode_result(heard.get(timeout=10)).payload for _ in range(2)} == {b"\x01", b"\x02"}


def test_closing_lets_who_waits_go_and_waiting_works_again_after_it(long_reads, waiting):
    handles = [waiting.echo.enqueue(n) for n in range(3)]
    answers = [later(handle.result) for handle in handles[:2]]  # without any timeout
    is_waited_for(waiting, 2)
    waiting.listener()
    later(waiting.results.close)(20)
    for answer in answers:
        with pytest.raises(StoreUnavailable, match=r"closed while task message .* it goes on"):
            answer(5)
    waiting.finish()
    assert [handle.result(timeout=10) for handle in handles] == [0, 1, 2]
    assert len(listeners()) == 1


def test_closing_lets_coroutines_that_wait_go_too(waiting):
    handle = waiting.echo.enqueue(1)

    async def main():
        answer = asyncio.ensure_future(handle.aresult())
        await asyncio.to_thread(is_waited_for, waiting)
        await asyncio.to_thread(waiting.results.close)
        with pytest.raises(StoreUnavailable, match=r"closed while task message .* it goes on"):
            await asyncio.wait_for(answer, 5)
        await waiting.app.aclose()

    asyncio.run(main())


def test_closing_while_redis_is_away_is_quick_and_final(long_reads, waiting, monkeypatch):
    monkeypatch.setattr(results_room, "backoff_s", lambda failures: 600.0)
    handle = waiting.echo.enqueue(1)
    answer = later(handle.result)
    is_waited_for(waiting)
    waiting.listener()
    waiting.server.stop()
    wait_until(lambda: waiting.results._listening.connection_id == 0, "the loss to be noticed")
    later(waiting.results.close)(20)
    with pytest.raises(StoreUnavailable, match=r"closed while task message .* it goes on"):
        answer(5)
    wait_until(lambda: not listeners(), "the listener to end")
    waiting.server.start()


def test_closing_while_redis_stands_still_leaves_no_second_listener(waiting, monkeypatch):
    monkeypatch.setattr(results_room, "BLOCK_MS", 200)
    handle = waiting.echo.enqueue(1)
    answer = later(handle.result)
    is_waited_for(waiting)
    waiting.listener()
    os.kill(waiting.server.pid, signal.SIGSTOP)
    closing = later(waiting.results.close)
    time.sleep(NEVER_S)  # whatever close does first, it does against a server that does not answer
    os.kill(waiting.server.pid, signal.SIGCONT)
    closing()
    with pytest.raises(StoreUnavailable, match=r"closed while task message .* it goes on"):
        answer(5)
    wait_until(lambda: not listeners(), "the listener to end")


def test_a_forked_child_waits_under_a_name_of_its_own(waiting):
    mine = waiting.echo.enqueue(1)
    answer = later(mine.result, 20)
    is_waited_for(waiting)
    waiting.listener()

    def child():
        handle = waiting.echo.enqueue(2)
        client = waiting.results.client_id
        settled = later(lambda: wait_until(waiting.finish, "the message"))
        return client, handle.result(timeout=10), settled() >= 1

    client, value, _ = in_child(child)
    assert (value, client != waiting.results.client_id) == (2, True)
    wait_until(
        lambda: waiting.finish() or waiting.driver.run(plain("EXISTS", waiting.keys.result(mine.id))), "the end of mine"
    )
    assert answer() == 1


def test_queues_are_listened_to_together(waiting):
    @waiting.app.task(queue="other")
    def elsewhere(value: int) -> int:
        return value

    first = later(waiting.echo.enqueue(1).result, 20)
    is_waited_for(waiting)
    waiting.listener()
    second = later(elsewhere.enqueue(2).result, 20)
    is_waited_for(waiting, 2)
    waiting.finish(keys=QueueKeys("own", "other"))
    assert second() == 2
    waiting.finish()
    assert first() == 1


def test_a_reply_stream_has_a_life_and_is_renewed(waiting, monkeypatch):
    results = Results(lambda: SyncDriver(Endpoint(waiting.server.url), ALL_SCRIPTS))
    monkeypatch.setattr(results_room, "REPLY_LIFE_MS", 900)
    monkeypatch.setattr(results_room, "BLOCK_MS", 100)
    results.watch(waiting.driver, waiting.keys)
    reply = waiting.keys.reply(results.client_id)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert 0 < waiting.driver.run(plain("PTTL", reply)) <= 900
        time.sleep(0.05)
    results.close()
    wait_until(lambda: not waiting.driver.run(plain("EXISTS", reply)), "the stream of a closed client to expire")


def test_one_can_begin_to_wait_when_redis_is_full(waiting):
    handle = waiting.echo.enqueue(7)
    waiting.driver.run(plain("CONFIG", "SET", "maxmemory", 1))
    answer = later(handle.result, 10)
    is_waited_for(waiting)
    waiting.finish()
    assert answer() == 7


def test_a_lost_loop_does_not_take_the_listener_with_it(waiting):
    first, second, left_alone = waiting.echo.enqueue(1), waiting.echo.enqueue(2), []

    async def abandoned():
        left_alone.append(asyncio.ensure_future(first.aresult(timeout=30)))
        await asyncio.to_thread(is_waited_for, waiting)

    asyncio.run(abandoned())
    answer = later(second.result, 10)
    is_waited_for(waiting)
    waiting.finish()
    assert answer() == 2
    assert first.result(timeout=5) == 1


def test_a_new_queue_and_the_end_are_not_left_waiting_for_the_listeners_read(waiting, monkeypatch):
    monkeypatch.setattr(results_room, "LOOK_AGAIN_S", 60.0)
    monkeypatch.setattr(results_room, "BLOCK_MS", 8_000)

    @waiting.app.task(queue="other")
    def elsewhere(value: int) -> int:
        return value

    unended = waiting.echo.enqueue(1)
    first = later(unended.result, 20)
    is_waited_for(waiting)
    waiting.listener()
    handle = elsewhere.enqueue(2)
    second = later(handle.result, 20)
    is_waited_for(waiting, 2)
    begun = time.monotonic()
    waiting.finish(keys=QueueKeys("own", "other"))
    assert second() == 2
    waiting.listener()
    waiting.app.close()
    assert time.monotonic() - begun < 4
    with pytest.raises(StoreUnavailable):
        first()


def test_what_redis_lost_is_not_said_to_have_ended(waiting):
    handle = waiting.echo.enqueue(7)
    waiting.driver.run(plain("FLUSHALL"))
    with pytest.raises(ResultGone, match=r"Redis has no trace of .* or Redis lost it"):
        handle.result(timeout=30)
