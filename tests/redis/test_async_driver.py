"""AsyncDriver: many in flight on one connection, and no caller ever gets another one's answer (rules 23, 37)."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import warnings

import pytest

from streamwork.errors import StoreRejected, StoreUnavailable
from streamwork.store import healing, scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.failures import NoScript
from streamwork.store.scripts import ALL_SCRIPTS
from tests.helpers import await_until, wait_until
from tests.redis.kit import LANE, outgoing


def on_loop(url, body, deadline_s=10.0):
    """Run `body(driver)` on a fresh loop with a fresh driver."""

    async def main():
        driver = AsyncDriver(Endpoint(url), ALL_SCRIPTS, deadline_s)
        try:
            return await body(driver)
        finally:
            await driver.close()

    return asyncio.run(main())


async def echo(driver, text):
    return (await driver.run(plain("ECHO", text))).decode()


def test_a_thousand_at_once_on_one_connection_get_their_own_answers(own, server):
    async def body(driver):
        texts = [str(n) for n in range(1000)]
        assert await asyncio.gather(*(echo(driver, text) for text in texts)) == texts
        return driver.greeting.client_id

    connections = "total_connections_received:"
    before = int(own.run(plain("INFO", "stats")).decode().partition(connections)[2].split()[0])
    assert on_loop(server.url, body) > 0
    assert int(own.run(plain("INFO", "stats")).decode().partition(connections)[2].split()[0]) == before + 1


@pytest.mark.parametrize("seed", range(3))
def test_five_hundred_random_cancels_mix_nothing_up(redis_url, seed):
    async def body(driver):
        draw = random.Random(seed)
        await driver.connect()
        connection = driver.greeting.client_id
        tasks, cancelled = [], 0
        while cancelled < 500:
            tasks += [(str(n), asyncio.ensure_future(echo(driver, str(n)))) for n in range(len(tasks), len(tasks) + 20)]
            if draw.random() < 0.7:
                await asyncio.sleep(0)  # sent by now; the others are cancelled before they are
            for _, task in draw.sample(tasks[-20:], 10):
                cancelled += task.cancel()
        done = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        answers = [(text, answer) for (text, _), answer in zip(tasks, done, strict=True)]
        assert sum(isinstance(answer, asyncio.CancelledError) for _, answer in answers) == cancelled
        assert [(t, a) for t, a in answers if not isinstance(a, asyncio.CancelledError) and t != a] == []
        assert len(answers) > cancelled
        assert await echo(driver, "last") == "last"
        assert (await driver.run(plain("CLIENT", "ID"))) == connection

    on_loop(redis_url, body)


def test_a_caller_cancelled_while_the_socket_is_full_takes_nobody_with_it(server):
    async def body(driver):
        await driver.connect()
        connection = driver.greeting.client_id
        os.kill(server.pid, signal.SIGSTOP)
        try:
            large = [str(n) + "x" * 500_000 for n in range(20)]
            tasks = [asyncio.ensure_future(echo(driver, text)) for text in large]
            await await_until(lambda: driver._connection._writer.transport.get_write_buffer_size() > 0, "a full socket")
            for task in tasks[::2]:
                task.cancel()
            await asyncio.sleep(0)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in done[::2])
        assert done[1::2] == large[1::2]
        assert await driver.run(plain("CLIENT", "ID")) == connection

    on_loop(server.url, body)


def test_what_cannot_be_sent_takes_nobodys_answer(redis_url):
    async def body(driver):
        good, bad, more = echo(driver, "a"), driver.run(plain("ECHO", None)), echo(driver, "b")
        answers = await asyncio.gather(good, bad, more, return_exceptions=True)
        assert (answers[0], answers[2]) == ("a", "b")
        assert isinstance(answers[1], TypeError)

    on_loop(redis_url, body)


def test_first_commands_at_once_make_one_connection(own, server):
    async def body(driver):
        await asyncio.gather(*(echo(driver, str(n)) for n in range(100)))
        return len(own.run(plain("CLIENT", "LIST")).splitlines())

    before = len(own.run(plain("CLIENT", "LIST")).splitlines())
    assert on_loop(server.url, body) == before + 1


def test_a_connect_that_is_cancelled_leaves_the_others_theirs(redis_url):
    async def body(driver):
        first, second = (asyncio.ensure_future(echo(driver, text)) for text in "ab")
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "b"

    on_loop(redis_url, body)


def test_run_all_answers_in_order_and_raises_the_first_refusal(redis_url, namespace):
    async def body(driver):
        texts = [str(n) for n in range(50)]
        assert await driver.run_all([plain("ECHO", text) for text in texts]) == [text.encode() for text in texts]
        with pytest.raises(StoreRejected, match="NO-SUCH-COMMAND"):
            await driver.run_all([plain("PING"), plain("NO-SUCH-COMMAND"), plain("NOR-THIS"), plain("PING")])
        gone = plain("XINFO", "GROUPS", "{" + namespace + ":default}:lane:1:", if_gone=[])
        assert await driver.run_all([gone, plain("ECHO", "x")]) == [[], b"x"]
        assert await driver.run_all([]) == []

    on_loop(redis_url, body)


def test_flushed_scripts_are_loaded_again_for_everyone_in_flight(redis_url, keys):
    async def body(driver):
        await driver.run(plain("SCRIPT", "FLUSH"))
        messages = [outgoing(value=n) for n in range(50)]
        await asyncio.gather(
            *(driver.run(scripts.enqueue(keys, f"s{n}", 1, [LANE], [1, m.body], 1, 64)) for n, m in enumerate(messages))
        )
        assert await driver.run(plain("XLEN", keys.lane(LANE))) == 50
        await driver.run(plain("SCRIPT", "FLUSH"))
        assert await driver.run_all([healing.heal(keys, LANE, 1), plain("ECHO", "x")]) == ["there", b"x"]
        with pytest.raises(NoScript):
            await driver.run(plain("EVALSHA", "f" * 40, 0))

    on_loop(redis_url, body)


def test_a_lost_connection_fails_all_in_flight_and_the_next_connects_anew(server, proxy):
    async def body(driver):
        await driver.connect()
        first = driver.greeting.client_id
        proxy.lose_reply(lambda request: request[0] == b"ECHO", 30)
        answers = await asyncio.gather(*(echo(driver, str(n)) for n in range(50)), return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        assert failed
        assert all(
            type(error) is StoreUnavailable and error.maybe_executed and proxy.where in str(error) for error in failed
        )
        assert [a for n, a in enumerate(answers) if not isinstance(a, Exception) and a != str(n)] == []
        assert await asyncio.gather(*(echo(driver, str(n)) for n in range(50))) == [str(n) for n in range(50)]
        assert driver.greeting.client_id != first

    on_loop(proxy.url, body)


def test_random_cuts_and_cancels_never_mix_answers(server, proxy):
    async def body(driver):
        draw = random.Random(11)
        wrong, good = [], 0
        for _ in range(15):
            tasks = [(str(n), asyncio.ensure_future(echo(driver, str(n)))) for n in range(40)]
            for _, task in draw.sample(tasks, 5):
                task.cancel()
            if draw.random() < 0.7:
                proxy.lose_reply(lambda request: request[0] == b"ECHO", draw.randint(1, 30))
            done = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
            for (text, _), answer in zip(tasks, done, strict=True):
                good += answer == text
                if not isinstance(answer, (asyncio.CancelledError, StoreUnavailable)) and answer != text:
                    wrong.append((text, answer))
        assert wrong == []
        assert good > 0

    on_loop(proxy.url, body)


def test_a_killed_connection_and_a_restarted_server_are_found_again(server, own):
    async def body(driver):
        await driver.connect()
        first_run, first_id = driver.run_id, driver.greeting.client_id
        own.run(plain("CLIENT", "KILL", "ID", first_id))
        await await_until(lambda: driver._connection is None, "the loss to be noticed")
        assert await echo(driver, "again") == "again"
        assert driver.greeting.client_id != first_id
        own.close()
        await asyncio.to_thread(server.stop)
        await await_until(lambda: driver._connection is None, "the loss to be noticed")
        with pytest.raises(StoreUnavailable) as caught:
            await echo(driver, "down")
        assert not caught.value.maybe_executed
        await asyncio.to_thread(server.start)
        assert await echo(driver, "up") == "up"
        assert driver.run_id not in ("", first_run)

    on_loop(server.url, body)


def test_a_stopped_server_fails_everyone_at_the_deadline(server):
    async def body(driver):
        await driver.connect()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(15):  # a deadline each, one after the other, would be 20 s
                answers = await asyncio.gather(*(echo(driver, str(n)) for n in range(20)), return_exceptions=True)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        assert await echo(driver, "next") == "next"

    on_loop(server.url, body, deadline_s=1.0)


def test_an_idle_connection_outlives_the_deadline(redis_url):
    async def body(driver):
        await echo(driver, "a")
        first = driver.greeting.client_id
        await asyncio.sleep(0.12)  # idle for twice the deadline is the point
        await echo(driver, "b")
        assert driver.greeting.client_id == first

    on_loop(redis_url, body, deadline_s=0.06)


def test_the_oldest_in_flight_counts_for_the_deadline(server):
    async def body(driver):
        await driver.connect()
        slow = asyncio.ensure_future(driver.run(plain("BLPOP", "nothing", 20)))
        others = []
        while not slow.done():  # if each new one began the deadline anew, the server would answer in the end
            others.append(asyncio.ensure_future(echo(driver, "other")))
            await asyncio.sleep(0.02)
        with pytest.raises(StoreUnavailable):
            await slow
        await asyncio.gather(*others, return_exceptions=True)

    on_loop(server.url, body, deadline_s=0.2)


def test_closing_fails_what_is_in_flight_and_gives_the_connection_back(own, server):
    async def body(driver):
        await driver.connect()
        number = driver.greeting.client_id
        waiting = asyncio.ensure_future(driver.run(plain("BLPOP", "nothing", 5)))
        await asyncio.sleep(0)
        await driver.close()
        with pytest.raises(StoreUnavailable):
            await waiting
        await driver.close()
        return number

    number = on_loop(server.url, body)
    wait_until(lambda: f"id={number} ".encode() not in own.run(plain("CLIENT", "LIST")), "the connection to be gone")


@pytest.mark.parametrize("ending", ["idle", "in flight", "reading", "forgotten"])
def test_a_loop_that_ends_without_closing_leaves_nothing_open(own, server, ending):
    async def main():
        driver = AsyncDriver(Endpoint(server.url), ALL_SCRIPTS)
        await driver.connect()
        if ending == "in flight":
            kept.append(asyncio.ensure_future(driver.run(plain("BLPOP", "nothing", 5))))
            await asyncio.sleep(0)
        elif ending == "reading":
            await asyncio.gather(*(echo(driver, str(n)) for n in range(10)))
        elif ending == "idle":
            kept.append(driver)
        return driver.greeting.client_id

    kept = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        number = asyncio.run(main())
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    wait_until(lambda: f"id={number} ".encode() not in own.run(plain("CLIENT", "LIST")), "the connection to be gone")


def test_an_app_works_on_one_loop_after_another(app):
    @app.task
    def noted(value: int) -> int:
        return value

    async def main(n):
        return await noted.aenqueue(n)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        handles = [asyncio.run(main(n)) for n in range(20)]
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    lane = app.connection.keys("default").lane(handles[0].lane)
    assert [row[0].decode() for row in app.connection.driver.run(plain("XRANGE", lane, "-", "+"))] == [
        h.entry for h in handles
    ]
    assert len(app.connection._loops) <= 1


def test_an_app_works_on_many_loops_at_once(app):
    @app.task
    def noted(value: int) -> int:
        return value

    async def main(start):
        handles = await asyncio.gather(*(noted.aenqueue(n) for n in range(start, start + 50)))
        await app.connection.aclose()
        return [handle.entry for handle in handles]

    entries = []
    threads = [threading.Thread(target=lambda s=s: entries.extend(asyncio.run(main(s)))) for s in range(0, 300, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lane = app.connection.keys("default").lane("1:")
    stored = [
        row[0].decode() for lane in lanes(app) for row in app.connection.driver.run(plain("XRANGE", lane, "-", "+"))
    ]
    assert sorted(stored) == sorted(entries), lane
    assert len(entries) == 300


def lanes(app):
    keys = app.connection.keys("default")
    return [keys.lane(name.decode()) for name in app.connection.driver.run(plain("HKEYS", keys.lanes))]


def test_a_connection_that_closed_before_anybody_heard_of_it_is_lost_and_replaced(redis_url):
    import uvloop  # says RuntimeError where asyncio's own transports swallow what they cannot write

    async def main():
        driver = AsyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        assert await driver.run(plain("PING")) == b"PONG"
        # A connection whose transport has closed, and whose reader has not been given its turn yet.
        _, closed = await asyncio.open_unix_connection(redis_url.removeprefix("unix://").partition("?")[0])
        closed.close()
        await closed.wait_closed()
        await asyncio.sleep(0)
        driver._connection._writer, before = closed, driver._connection._writer
        try:
            with pytest.raises(StoreUnavailable):
                await driver.run(plain("PING"))
            assert await driver.run(plain("PING")) == b"PONG"
        finally:
            before.close()
            await driver.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
