"""A Redis that dies, stalls, loses its data or its connections: workers and callers go on by themselves."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS, SETTLE
from streamwork.store.sync_driver import SyncDriver
from tests.apps import faults
from tests.helpers import wait_until
from tests.proxy import DropReplyProxy, is_script
from tests.system.kit import TTL_S, deaths, done, successes, until_reaped


@pytest.fixture
def streamwork_redis_url(server):
    """Everything of these tests is on a server of their own."""
    return server.url


@pytest.fixture
def redis_url(server):
    return server.url


@pytest.fixture
def proxy(server):
    """A TCP way to the server, to cut."""
    proxy = DropReplyProxy(server.socket_path)
    yield proxy
    proxy.close()


def drained(handles, look):
    """Every message has ended, by exactly one record of success."""
    for handle in handles:
        assert handle.result(timeout=20) is None
    state = look()
    assert successes(state) == {handle.id: 1 for handle in handles}
    assert (state.in_flight, state.due, state.dead) == (0, {}, {})


@pytest.mark.parametrize("down_s", [0.0, 1.5 * TTL_S])
def test_a_redis_killed_in_mid_drain_and_restarted_loses_and_doubles_nothing(
    start, send, app, server, look, keys, down_s
):
    workers = [start(slots=20), start(slots=20)]
    wait = send.declared(faults.wait)
    handles = app.enqueue_many(wait.call(0.005) for _ in range(2_000))
    watch = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    wait_until(lambda: done(watch, keys) > 300, "in mid-drain")
    server.stop(signal.SIGKILL)
    watch.close()
    time.sleep(down_s)  # the fault itself: shorter and longer than a life
    server.start()
    drained(handles, look)
    assert "fenced" not in "".join(worker.text() for worker in workers)


def test_an_answer_that_was_lost_with_its_connection_is_not_waited_for_until_the_audit(start, send, proxy, notes, look):
    # A read is served, its reply is cut off: the entries are the worker's, and it has never seen them.
    worker = start(redis_url=proxy.url, slots=5)
    assert send(faults.nothing).result(timeout=10) == 0
    proxy.lose_reply(lambda request: request[0] == b"XREADGROUP" and b"BLOCK" in request, 1)
    wait_until(lambda: proxy.seen, "a read waits")
    handle = send(faults.note, notes.path, "one")
    wait_until(lambda: proxy.dropped, "its reply was lost")
    assert handle.result(timeout=10) == (1, 0)
    assert len(notes.runs()) == 1
    worker.until("own entries found again")


def test_redis_stalled_for_two_lives_takes_nobodys_work(start, send, server, proxy, notes, driver, keys, look):
    ttl_s = 2.0
    workers = [start(ttl_s=ttl_s, slots=3) for _ in range(2)]
    workers.append(start(ttl_s=ttl_s, slots=3, redis_url=proxy.url))
    handles = [send(faults.hold, notes.path, str(n)) for n in range(9)]
    notes.until(9)
    assert len({run.pid for run in notes.runs()}) == 3
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(2 * ttl_s)  # the fault itself: every life has ended, and so has the pulse
    # Who is back first must wait for who is back last, here the one whose connections do not survive the stall.
    proxy.lose_request(lambda request: True, *range(1, 1_000))
    os.kill(server.pid, signal.SIGCONT)
    wait_until(lambda: driver.run(plain("EXISTS", keys.grace)), "grace is given")
    until_reaped(driver, keys, 2)  # the look after the one that gave it
    proxy.lose_request(lambda request: False)
    wait_until(lambda: not driver.run(plain("EXISTS", keys.grace)), "grace is over")
    until_reaped(driver, keys, 3)
    notes.go()
    assert [handle.result(timeout=20) for handle in handles] == [(1, 0)] * 9
    assert len(notes.runs()) == 9
    assert deaths(*workers) == []
    assert look().suspects == {}


def test_cut_connections_cost_nobody_a_lease_and_no_message_its_one_outcome(
    start, send, app, proxy, notes, driver, keys, look
):
    worker = start(redis_url=proxy.url, slots=20)
    held = send(faults.hold, notes.path, "held")
    notes.until(1)
    wait = send.declared(faults.wait)
    handles = app.enqueue_many(wait.call(0.005) for _ in range(1_000))
    for n in range(1, 6):
        wait_until(lambda: done(driver, keys) > n * 100, f"cut {n}")  # noqa: B023 - waited for at once
        proxy.cut()
    for handle in handles:
        assert handle.result(timeout=20) is None
    notes.go()
    assert held.result(timeout=10) == (1, 0)
    assert len(notes.runs()) == 1
    assert successes(look()) == {handle.id: 1 for handle in [held, *handles]}
    assert deaths(worker) == []


def test_half_open_connections_cost_nobody_a_lease(start, send, proxy, notes, driver, keys, look):
    peer = start(ttl_s=2.0, slots=1)
    first = send(faults.hold, notes.path, "first")
    notes.until(1)
    worker = start(ttl_s=2.0, slots=1, redis_url=proxy.url, environ={"STREAMWORK_CLIENT_DEADLINE_S": "2"})
    held = send(faults.hold, notes.path, "held")
    notes.until(2)
    proxy.stall()
    until_reaped(driver, keys, 6)  # about two lives of looks by the peer, which is on duty
    notes.go()
    assert [handle.result(timeout=20) for handle in (first, held)] == [(1, 0)] * 2
    assert len(notes.runs()) == 2
    assert deaths(peer, worker) == []
    peer.kill()
    assert send(faults.nothing, 3).result(timeout=20) == 3


def test_a_settle_whose_answer_is_lost_is_asked_for_again_and_was_committed(start, send, proxy, notes, look):
    worker = start(redis_url=proxy.url)
    assert send(faults.nothing).result(timeout=10) == 0
    proxy.lose_reply(is_script(SETTLE), 1)
    handle = send(faults.note, notes.path, "one")
    assert handle.result(timeout=10) == (1, 0)
    wait_until(lambda: proxy.dropped == 1, "the answer was lost")
    worker.until("Redis is back")
    assert successes(look())[handle.id] == 1
    assert len(notes.runs()) == 1
    assert "lease lost" not in worker.text()


def test_a_worker_that_drains_without_redis_ends_by_itself(start, send, proxy):
    worker = start(redis_url=proxy.url, drain_timeout_s=1)
    assert send(faults.nothing).result(timeout=10) == 0
    proxy.close()
    worker.signal(signal.SIGTERM)
    # The caller may know of the end before the worker knows that it is written; then that goes to a file.
    status = worker.wait(within_s=15)
    assert status == (3 if "outcomes are spooled" in worker.text() else 0)
    assert "Traceback" not in worker.text()


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "under load"])
def test_after_a_flush_new_tasks_run(start, send, app, driver, keys, look, is_busy):
    worker = start(slots=10)
    assert send(faults.nothing).result(timeout=10) == 0
    if is_busy:
        wait = send.declared(faults.wait)
        app.enqueue_many(wait.call(0.01) for _ in range(500))
        wait_until(lambda: done(driver, keys) > 50, "under way")
    driver.run(plain("FLUSHALL"))
    for n in range(20):
        assert send(faults.nothing, n).result(timeout=10) == n
    assert len(worker.children) == 1
    worker.until("its registration was deleted")  # and it took a new one
    assert "data lost" in worker.text()  # also where a producer came first and made the lane anew
    wait_until(lambda: len(look().consumers) == 1, "registered again")
    assert send(faults.nothing, 99).result(timeout=10) == 99


@pytest.mark.parametrize("damage", ["group", "lane"])
def test_a_lane_or_its_group_that_is_gone_is_made_anew_and_said_aloud(start, send, notes, driver, keys, look, damage):
    worker = start()
    held = send(faults.hold, notes.path, "held")
    notes.until(1)
    if damage == "group":
        driver.run(plain("XGROUP", "DESTROY", keys.lane("1:"), "workers"))
    else:
        driver.run(plain("DEL", keys.lane("1:")))
    destroyed = "a lane's consumer group was destroyed and is made anew: no task message is lost"
    deleted = "data lost: a lane was deleted with all that waited or ran on it, and is made anew"
    worker.until(destroyed if damage == "group" else deleted)
    assert ("data lost" in worker.text()) is (damage == "lane")
    assert send(faults.nothing, 7).result(timeout=10) == 7
    notes.go()
    # What only the group knew runs again from the entry that is still there; with the lane, the message is gone.
    if damage == "group":
        assert held.result(timeout=10) == (1, 0)
    assert len(notes.runs()) == (2 if damage == "group" else 1)
    assert max(successes(look()).values()) == 1
    assert all(len(owners) == 0 for owners in look().pending.values())


def test_a_lost_group_of_an_idle_lane_does_not_run_history_again(start, send, notes, driver, keys, look):
    worker = start()
    for n in range(20):
        send(faults.note, notes.path, str(n)).result(timeout=10)
    # The mark that the maintainer keeps, every 20 s in a daemon.
    last = max((entry for entry, _ in look().lanes["1:"]), key=lambda entry: tuple(map(int, entry.split("-"))))
    driver.run(plain("HSET", keys.low, "1:", last))
    driver.run(plain("XGROUP", "DESTROY", keys.lane("1:"), "workers"))
    worker.until("no task message is lost")
    assert send(faults.note, notes.path, "new").result(timeout=10) == (1, 0)
    assert [run.text for run in notes.runs()] == [*map(str, range(20)), "new"]


def test_a_caller_that_waits_hears_its_result_after_the_restart(start, send, server, notes):
    start()
    handle = send(faults.hold, notes.path, "one")
    notes.until(1)
    server.stop(signal.SIGKILL)
    notes.go()
    server.start()
    assert handle.result(timeout=15) == (1, 0)
    assert len(notes.runs()) == 1


def embedded_family(folder):
    """Pids of guardian and server of the embedded Redis of a folder: their working directory is in there."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str((entry / "cwd").readlink()).startswith(str(folder / ".streamwork")):
                found["server" if "redis" in (entry / "comm").read_text() else "guardian"] = int(entry.name)
        except OSError:
            continue
    return found


@pytest.fixture
def embedded(start, app, notes, tmp_path):
    """A worker without a URL; the test's app uses the same embedded server."""
    socket_ = tmp_path / ".streamwork" / "socket"
    worker = start(redis_url="", environ={"TMPDIR": "/tmp"})
    wait_until(socket_.exists, "the embedded server")
    app.configure({"url": f"unix://{socket_.read_text().strip()}?db=0"})
    yield worker
    worker.kill()
    app.close()
    wait_until(lambda: not embedded_family(tmp_path), "the embedded server ends with its last user", 15)


def test_a_worker_starts_its_embedded_redis_again_after_a_kill_of_the_guardian(embedded, send, tmp_path):
    assert send(faults.nothing, 1).result(timeout=10) == 1
    before = embedded_family(tmp_path)
    os.kill(before["guardian"], signal.SIGKILL)
    wait_until(lambda: before["server"] not in embedded_family(tmp_path).values(), "the server ends with its guardian")
    wait_until(lambda: len(embedded_family(tmp_path)) == 2, "both are there again", 20)
    assert send(faults.nothing, 2).result(timeout=20) == 2


def test_sigterm_to_every_process_lets_work_end_on_the_embedded_redis(embedded, send, notes, tmp_path):
    handle = send(faults.hold, notes.path, "x")
    notes.until(1)
    everyone = [*embedded_family(tmp_path).values(), *embedded.children, embedded.pid]
    for pid in everyone:
        os.kill(pid, signal.SIGTERM)
    embedded.until("draining")
    notes.go()
    assert embedded.wait() == 0
    assert "spooled" not in embedded.text()
    assert list((tmp_path / ".streamwork").glob("spool/*")) == []
    wait_until(lambda: not embedded_family(tmp_path), "the server ends with its last user", 15)
    assert handle.id
