"""SIGTERM and what follows: let run, give back, cancel, spool; and nothing is left behind (P8)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from streamwork.model.state import State
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from tests.apps import life
from tests.helpers import state_of, wait_until
from tests.system.kit import is_gone, until_nobody_reads

HOLDERS = [life.hold, life.hold_in_thread, life.hold_in_process]
each_holder = pytest.mark.parametrize("holder", HOLDERS, ids=lambda task: task.name.rpartition(".")[2])


@pytest.fixture
def work(start):
    """Start a worker of tests/apps/life.py."""
    return lambda **options: start("tests.apps.life:app", **options)


def family(worker):
    """Return the processes of a worker's session that live."""
    found = subprocess.run(
        ["ps", "-s", str(worker.pid), "-o", "pid=,stat="], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid, stat in map(str.split, found.stdout.splitlines()) if not stat.startswith("Z")]


def is_clean(look, driver, keys):
    """Whether nothing tells that a worker has been there."""
    names = {
        row[1] for lane in look().lanes for row in driver.run(plain("XINFO", "CONSUMERS", keys.lane(lane), "workers"))
    }
    alive = driver.run(plain("KEYS", keys.alive("*").replace("[", "\\[")))
    return (look().consumers, names - {b"returned"}, alive) == (set(), set(), [])


@each_holder
def test_what_runs_may_end_and_nothing_new_is_read(work, send, notes, look, driver, keys, holder):
    worker = work(slots=3)
    running = send(holder, notes.path, "running")
    notes.until(1, 20)
    worker.signal(signal.SIGTERM)
    until_nobody_reads(driver)
    late = send(life.hold, notes.path, "late")
    notes.go()
    assert worker.wait() == 0
    assert running.result(timeout=1) == (1, 0)
    assert (late.state(), notes.runs("late")) == (State.WAITING, [])
    assert is_clean(look, driver, keys)
    assert family(worker) == []


def test_ctrl_c_drains_too_and_ends_with_the_status_for_it(work, send, notes):
    worker = work()
    running = send(life.hold, notes.path, "running")
    notes.until(1)
    worker.signal(signal.SIGINT)
    worker.until("draining")
    notes.go()
    assert (worker.wait(), running.result(timeout=1)) == (130, (1, 0))


def test_the_lifespan_is_left_at_the_end(work, tmp_path):
    worker = work()
    (child,) = worker.children
    worker.signal()
    assert worker.wait() == 0
    assert (tmp_path / "lifespan.ended").read_text() == f"{child}\n"


def test_at_the_drain_timeout_the_rest_is_given_back_in_place_and_runs_elsewhere_at_once(
    work, send, notes, look, driver, keys
):
    # One thread, so that two wait behind the one that runs.
    first = work(drain_timeout_s=0.3, slots=8, threads=1)
    handles = [send(holder, notes.path, f"{n}") for n, holder in enumerate(HOLDERS)]
    handles += [send(life.hold_in_thread, notes.path, f"queued-{n}") for n in range(2)]
    began = notes.until(3, 20)
    places = look().lanes
    first.signal()
    assert first.wait() == 0
    assert is_clean(look, driver, keys)
    state = look()
    assert (state.returned, state.journal, state.lanes) == ({"1:"}, [], places)
    assert {owner for owner, _ in state.pending["1:"].values()} == {"returned"}
    wait_until(lambda: all(is_gone(run.pid) for run in began), "what ran is gone")

    work(slots=8)
    notes.until(len(began) + 5, 20)
    notes.go()
    # Neither an attempt nor a crash was counted.
    assert [handle.result(timeout=10) for handle in handles] == [(1, 0)] * 5
    assert len(notes.runs()) == len(began) + 5


@each_holder
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_second_signal_cancels_now(work, send, notes, look, holder, number):
    worker = work(drain_timeout_s=60)
    handle = send(holder, notes.path, "x")
    notes.until(1, 20)
    worker.signal(number)
    worker.until("draining")
    worker.signal(number)
    assert worker.wait(8) == (0 if number == signal.SIGTERM else 130), worker.text()
    assert (look().returned, handle.state(), look().journal) == ({"1:"}, State.WAITING, [])
    assert "spooled" not in worker.text()
    assert "worker process died" not in worker.text()  # it did not have to be killed


@pytest.mark.parametrize("holder", [life.hold_stubbornly, life.hold_in_a_thread_of_its_own], ids=lambda task: task.name)
def test_a_body_that_cannot_be_cancelled_does_not_keep_the_worker(work, send, notes, look, holder):
    worker = work(drain_timeout_s=0.2)
    send(holder, notes.path, "x")
    notes.until(1)
    worker.signal()
    assert worker.wait(8) == 0
    assert (look().returned, look().suspects) == ({"1:"}, {})


def test_a_body_that_holds_the_loop_is_killed_after_the_second_signal_and_not_blamed(work, send, notes, look):
    worker = work(drain_timeout_s=60)
    send(life.hold_the_loop, notes.path, "x")
    notes.until(1)
    for words in ("draining", "stopping now"):
        worker.signal()
        worker.until(words)
    assert worker.wait(15) == 0
    assert (look().returned, look().suspects, look().consumers) == ({"1:"}, {}, set())


def deaf(how, work, send, notes, tmp_path):
    """Start a worker whose process cannot hear that it is to end."""
    if how == "import":
        (tmp_path / "hanging.py").write_text("open('hangs', 'w').close(); import time; time.sleep(600)")
        worker = work(app="hanging:app", ready=False)
        wait_until((tmp_path / "hangs").exists, "it is imported", 20)
        return worker
    if how == "lifespan":
        (tmp_path / "lifespan.linger").touch()
    worker = work()
    if how == "body":
        send(life.hold_the_loop, notes.path, "x")
        notes.until(1)
    if how == "stopped":
        send(life.hold, notes.path, "x")
        notes.until(1)
        os.kill(worker.children[0], signal.SIGSTOP)
    return worker


@pytest.mark.parametrize("how", ["body", "stopped", "lifespan", "import"])
def test_one_sigterm_ends_what_cannot_hear_it_and_nobody_is_blamed(start, send, notes, look, tmp_path, how):
    def work(app="tests.apps.life:app", **options):
        return start(app, drain_timeout_s=0.3, hung_after_s=1.0, **options)

    worker = deaf(how, work, send, notes, tmp_path)
    worker.signal()
    assert worker.wait(15) == 0, worker.text()
    assert "it did not stop when told to" in worker.text()
    assert (look().suspects, look().consumers) == ({}, set())
    assert look().returned == ({"1:"} if how in {"body", "stopped"} else set())
    assert family(worker) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT], ids=lambda number: number.name)
def test_sighup_and_sigquit_to_all_drain_too(work, send, notes, number):
    before = signal.signal(number, signal.SIG_DFL)  # this run itself may be under nohup
    try:
        worker = work()
    finally:
        signal.signal(number, before)
    running = send(life.hold, notes.path, "running")
    notes.until(1)
    os.killpg(worker.pid, number)  # as a terminal does
    worker.until("draining")
    notes.go()
    assert (worker.wait(), running.result(timeout=1)) == (0, (1, 0))


def test_nohup_is_respected(start, send, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        worker = start("tests.apps.life:app")
    finally:
        signal.signal(signal.SIGHUP, before)
    worker.signal(signal.SIGHUP)
    assert send(life.pid).result(timeout=10) in worker.children
    assert worker.process.poll() is None


def test_a_lifespan_that_hangs_at_the_start_can_be_ended(work, tmp_path, look):
    (tmp_path / "lifespan.hang").touch()
    worker = work(ready=False)
    wait_until(lambda: look().consumers, "it is registered", 20)
    worker.signal()
    assert worker.wait(8) == 0
    assert look().consumers == set()


def test_starts_and_stops_in_quick_succession_leave_nothing_behind(work, look, driver, keys):
    workers = []
    for pause_s in (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, None):
        worker = work(ready=pause_s is None, processes=2)
        if pause_s:
            time.sleep(pause_s)
        worker.signal()
        workers.append(worker)
    # Before its handlers are there a SIGTERM ends Python by itself.
    assert {worker.wait() for worker in workers} <= {0, -signal.SIGTERM}
    assert workers[-1].wait() == 0
    wait_until(lambda: is_clean(look, driver, keys), lambda: f"clean: {look().consumers}", 5)
    assert [family(worker) for worker in workers] == [[]] * len(workers)


def test_several_processes_end_together_and_each_signs_off(work, send, notes, look, driver, keys):
    worker = work(processes=3, slots=2)
    children = worker.children
    handles = [send(life.hold, notes.path, f"{n}") for n in range(6)]
    notes.until(6)
    worker.signal()
    worker.until("draining")
    notes.go()
    assert worker.wait() == 0
    assert [handle.result(timeout=1) for handle in handles] == [(1, 0)] * 6
    assert is_clean(look, driver, keys)
    assert all(map(is_gone, children))


def test_a_sigkill_of_the_worker_leaves_no_pool_process_behind(work, send, notes):
    worker = work()
    send(life.hold_in_process, notes.path, "x")
    (held,) = notes.until(1, 20)
    (child,) = worker.children
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: is_gone(held.pid), "the pool process died with its worker process")
    worker.until("worker process died")
    notes.until(2, 20)
    pool = notes.runs()[1].pid
    worker.process.kill()
    wait_until(lambda: is_gone(pool) and family(worker) == [], lambda: f"all are gone: {family(worker)}")


def test_a_process_that_a_body_forked_does_not_hold_the_hand_over_up(work, send, notes):
    worker = work()
    handle = send(life.leave_a_child_behind, notes.path, "x")
    try:
        assert handle.result(timeout=10) == (1, 1)
        assert worker.process.poll() is None
    finally:
        child = Path(notes.path.with_suffix(".child"))
        if child.exists():
            os.kill(int(child.read_text()), signal.SIGKILL)


def test_sigterm_waits_for_the_hand_over_of_a_process_that_has_just_died(start, server, namespace, notes, app):
    app.configure({"url": server.url})
    worker = start("tests.apps.life:app", redis_url=server.url, ttl_s=10)
    app.task(name=life.hold.name)(life.hold.function).enqueue(notes.path, "x")
    notes.until(1)
    os.kill(server.pid, signal.SIGSTOP)
    (child,) = worker.children
    os.kill(child, signal.SIGKILL)
    worker.until("worker process died")
    worker.signal()
    time.sleep(0.3)
    assert worker.process.poll() is None
    os.kill(server.pid, signal.SIGCONT)
    assert worker.wait() == 0
    own = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    state = state_of(own, QueueKeys(namespace, "default"))
    own.close()
    assert (state.returned, state.consumers, len(state.suspects)) == ({"1:"}, set(), 1)


def test_a_redis_that_hangs_does_not_hold_the_end_up_at_the_hand_over(start, server, namespace, notes, app):
    # Each command would wait for 10 s.
    app.configure({"url": server.url})
    worker = start("tests.apps.life:app", redis_url=server.url, ttl_s=60)
    app.task(name=life.hold.name)(life.hold.function).enqueue(notes.path, "x")
    notes.until(1)
    os.kill(server.pid, signal.SIGSTOP)
    os.kill(worker.children[0], signal.SIGKILL)
    worker.until("worker process died")
    worker.signal()
    assert worker.wait(8) == 0
    assert "could not hand over" in worker.text()


def spool_files(folder):
    return list((folder / ".streamwork" / "spool").glob("*"))


@pytest.fixture
def spooled(server, namespace, notes, tmp_path, app, request):
    """Let a task end while Redis is away, then end the worker with these signals; returns how and the task's handle."""

    def spool(start, signals, **options):
        app.configure({"url": server.url})
        worker = start("tests.apps.life:app", redis_url=server.url, **options)
        handle = app.task(name=life.hold.name)(life.hold.function).enqueue(notes.path, "x")
        notes.until(1)
        server.stop()
        notes.go()
        for words in ["draining", "stopping now"][:signals]:
            worker.signal()
            worker.until(words)
        began = time.monotonic()
        return worker.wait(), time.monotonic() - began, handle

    return spool


def test_finished_work_that_redis_cannot_take_is_spooled_and_settled_by_the_next_start(
    spooled, start, server, notes, tmp_path
):
    status, _, handle = spooled(start, 1, drain_timeout_s=0.3)
    assert status == 3
    (file,) = spool_files(tmp_path)
    assert file.suffix == ".spool"
    server.start()
    worker = start("tests.apps.life:app", redis_url=server.url)
    assert handle.result(timeout=10) == (1, 0)
    assert len(notes.runs()) == 1
    assert spool_files(tmp_path) == []
    worker.signal()
    assert worker.wait() == 0


def test_a_second_signal_does_not_wait_for_a_redis_that_is_away(spooled, start, tmp_path):
    status, took_s, _ = spooled(start, 2, drain_timeout_s=60)
    assert status == 3
    assert took_s < 15
    assert len(spool_files(tmp_path)) == 1


def test_a_spool_file_that_cannot_be_read_stops_nobody(start, send, tmp_path, namespace):
    folder = tmp_path / ".streamwork" / "spool"
    folder.mkdir(parents=True)
    (folder / f"{namespace}-0.spool").write_bytes(b"torn")
    worker = start("tests.apps.life:app")
    assert "cannot be read" in worker.text()
    assert send(life.work).result(timeout=10)
