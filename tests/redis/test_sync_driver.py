"""SyncDriver: a connection per thread, forgotten after a fork; answers belong to their requests (rules 2, 23, 37)."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from streamwork.errors import StoreError, StoreRejected, StoreUnavailable, UseAsync
from streamwork.store import healing, scripts
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.failures import NoGroup, NoScript
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from tests.forked import in_child
from tests.helpers import wait_until
from tests.redis.kit import LANE, calls_of, put

ECHOES = [plain("ECHO", str(n)) for n in range(50)]


def client_id(driver):
    return driver.run(plain("CLIENT", "ID"))


def test_a_thread_keeps_its_connection_and_shares_it_with_nobody(driver):
    mine = {client_id(driver) for _ in range(3)}
    ids = []

    def run():
        ids.append({client_id(driver) for _ in range(3)})
        driver.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(found) for found in (mine, *ids)] == [1] * 9
    assert len(set.union(mine, *ids)) == 9


def test_many_threads_get_their_own_answers(driver):
    wrong = []

    def run(n):
        wrong.extend(i for i in range(200) if driver.run(plain("ECHO", f"{n}-{i}")) != f"{n}-{i}".encode())
        driver.close()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_connection_knows_its_server(driver):
    greeting = driver.link().greeting
    info = driver.run(plain("INFO", "server")).decode()
    assert f"run_id:{greeting.run_id}\r" in info
    assert greeting.client_id == client_id(driver)
    assert abs(driver.server_ms() - time.time() * 1000) < 60_000


def test_scripts_are_loaded_once_per_server_not_per_call(own, own_keys, server):
    put(own, own_keys, 2)
    second = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    put(second, own_keys, 2)
    second.close()
    loads = [line for line in own.run(plain("INFO", "commandstats")).decode().splitlines() if "script|load" in line]
    # 6.2 counts SCRIPT as one: EXISTS per connection, LOAD per script of the first.
    count = calls_of(own, "script|load") if loads else calls_of(own, "script") - 2
    assert count == len(ALL_SCRIPTS)


def test_a_flushed_script_is_loaded_and_run_once(driver, keys):
    for way in (put, lambda *args: driver.run_all([healing.heal(keys, LANE, 1), plain("PING")])):
        driver.run(plain("SCRIPT", "FLUSH"))
        way(driver, keys)
    driver.run(plain("SCRIPT", "FLUSH"))
    command = scripts.watch(keys, "client", 60_000)
    driver.begin(command)
    assert driver.finish(command) is True
    assert driver.run(plain("XLEN", keys.lane(LANE))) == 1


def test_a_script_that_no_one_can_load_is_an_error_and_no_loop(driver):
    with pytest.raises(NoScript):
        driver.run(plain("EVALSHA", "f" * 40, 0))


def test_run_all_is_one_round_trip_in_order(own, server, proxy):
    driver = SyncDriver(Endpoint(proxy.url), ())
    driver.run(plain("PING"))
    os.kill(server.pid, signal.SIGSTOP)
    proxy.lose_reply(lambda request: request[0] == b"ECHO")
    thread = threading.Thread(
        target=lambda: (wait_until(lambda: proxy.seen == 50, "all requests"), os.kill(server.pid, signal.SIGCONT))
    )
    thread.start()
    assert driver.run_all(ECHOES) == [str(n).encode() for n in range(50)]
    thread.join()
    driver.close()
    assert driver.run_all([]) == []


def test_run_all_raises_the_first_refusal_and_leaves_no_answer_behind(driver, keys):
    driver.run(plain("SET", keys.alive("x"), "y", "PX", 10_000))
    with pytest.raises(StoreRejected, match="WRONGTYPE"):
        driver.run_all(
            [plain("PING"), plain("HGETALL", keys.alive("x")), plain("NO-SUCH-COMMAND"), plain("ECHO", "last")]
        )
    assert driver.run(plain("ECHO", "next")) == b"next"


def test_what_is_gone_has_an_answer_where_the_command_says_so(driver, keys):
    commands = [plain("XINFO", "GROUPS", keys.lane(LANE), if_gone=[]), plain("ECHO", "x")]
    assert driver.run_all(commands) == [[], b"x"]
    assert driver.run(commands[0]) == []
    with pytest.raises(NoGroup):
        driver.run(plain("XINFO", "GROUPS", keys.lane(LANE)))


def test_a_reset_in_the_middle_of_many_is_in_doubt_and_the_next_connects_anew(server, proxy):
    driver = SyncDriver(Endpoint(proxy.url), ALL_SCRIPTS)
    before = client_id(driver)
    proxy.lose_reply(lambda request: request[0] == b"ECHO", 25)
    with pytest.raises(StoreUnavailable) as caught:
        driver.run_all(ECHOES)
    assert caught.value.maybe_executed
    assert proxy.where in str(caught.value)
    assert driver.run_all(ECHOES) == [str(n).encode() for n in range(50)]
    assert client_id(driver) != before
    driver.close()


def test_a_closed_server_is_found_again(server):
    driver = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    first = driver.link().greeting.run_id
    server.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            driver.run(plain("PING"))
    server.start()
    assert driver.run(plain("PING")) == b"PONG"
    assert driver.link().greeting.run_id != first
    driver.close()


def test_a_late_answer_is_not_taken_for_the_next_ones(server):
    driver = SyncDriver(Endpoint(server.url), ALL_SCRIPTS, deadline_s=0.2)
    driver.run(plain("PING"))
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable) as caught:
            driver.run(plain("ECHO", "late"))
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert caught.value.maybe_executed
    assert driver.run(plain("ECHO", "next")) == b"next"
    driver.close()


def test_a_single_command_may_wait_longer(server):
    driver = SyncDriver(Endpoint(server.url), ALL_SCRIPTS, deadline_s=0.05)
    assert driver.run(plain("BLPOP", "nothing", 0.3), timeout_s=5) is None
    with pytest.raises(StoreUnavailable):
        driver.run(plain("BLPOP", "nothing", 2))
    driver.close()


def test_ctrl_c_between_request_and_answer_does_not_shift_the_answers(driver):
    driver.begin(plain("ECHO", "never read"))
    assert driver.run(plain("ECHO", "mine")) == b"mine"


def test_ctrl_c_while_waiting_does_not_shift_them_either(driver):
    def ring(*_):
        raise KeyboardInterrupt

    driver.run(plain("PING"))
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            driver.run(plain("BLPOP", "nothing", 0.4))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert driver.run_all(ECHOES) == [str(n).encode() for n in range(50)]


def test_what_cannot_be_sent_leaves_the_connection_in_order(driver):
    before = client_id(driver)
    with pytest.raises(TypeError):
        driver.run(plain("ECHO", None))
    assert driver.run(plain("ECHO", "next")) == b"next"
    assert client_id(driver) == before


def test_a_forked_child_has_a_connection_of_its_own_and_does_not_hurt_the_parents(driver):
    mine = client_id(driver)
    theirs = [in_child(lambda: (client_id(driver), driver.run_all(ECHOES)[-1])) for _ in range(3)]
    assert [answer for _, answer in theirs] == [b"49"] * 3
    assert len({mine, *(number for number, _ in theirs)}) == 4
    assert client_id(driver) == mine


def test_a_driver_without_scripts_can_connect(redis_url):
    driver = SyncDriver(Endpoint(redis_url), ())
    assert driver.run(plain("PING")) == b"PONG"
    driver.close()


def test_closing_gives_the_connection_back(own, server):
    driver = SyncDriver(Endpoint(server.url), ())
    number = client_id(driver)
    driver.close()
    wait_until(lambda: f"id={number} ".encode() not in own.run(plain("CLIENT", "LIST")), "the connection to be gone")
    driver.close()


@pytest.mark.parametrize("call", ["enqueue", "result", "state", "cancel", "enqueue_many"])
def test_a_blocking_call_on_a_loop_says_use_async(app, call):
    import asyncio

    @app.task
    def echo(value: int) -> int:
        return value

    async def main():
        handle = await echo.aenqueue(1)
        blocking = {
            "enqueue": lambda: echo.enqueue(2),
            "result": lambda: handle.result(timeout=1),
            "state": handle.state,
            "cancel": handle.cancel,
            "enqueue_many": lambda: app.enqueue_many([echo.call(3)]),
        }[call]
        try:
            with pytest.raises(UseAsync, match=call if call != "result" else "aresult"):
                blocking()
        finally:
            await app.connection.aclose()
        return handle

    handle = asyncio.run(main())
    assert app.connection.driver.run(plain("XLEN", app.connection.keys("default").lane(handle.lane))) == 1


def test_errors_do_not_cost_the_connection(driver, keys):
    before = client_id(driver)
    for command in (
        plain("NO-SUCH-COMMAND"),
        plain("EVAL", "error('x')", 0),
        plain("XPENDING", keys.lane(LANE), "workers"),
    ):
        with pytest.raises(StoreError):
            driver.run(command)
    assert client_id(driver) == before
