"""SIGKILL of a child, of its supervisor, of both: the work runs elsewhere once more, and nobody else is blamed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from tests.apps import faults
from tests.helpers import wait_until
from tests.system.kit import TTL_S, is_gone, successes


def test_at_defaults_ten_tasks_of_a_killed_worker_run_elsewhere_within_ten_seconds(start, send, notes, look):
    first = start(ttl_s=5.0)
    handles = [send(faults.hold, notes.path, str(n)) for n in range(10)]
    begun = notes.until(10)
    assert {run.pid for run in begun} == set(first.children)
    start(ttl_s=5.0)
    first.kill()
    again = notes.until(20, within_s=10)[10:]
    assert sorted(run.text for run in again) == sorted(str(n) for n in range(10))
    notes.go()
    # A vanished host proves no crash, and it costs no attempt.
    assert [handle.result(timeout=10) for handle in handles] == [(1, 0)] * 10
    assert len(notes.runs()) == 20
    assert set(successes(look()).values()) == {1}


def test_a_killed_child_is_replaced_and_what_it_had_not_begun_is_not_blamed(start, send, app, notes, look):
    worker = start(slots=4, threads=1)
    hold = send.declared(faults.hold_in_thread)
    handles = app.enqueue_many(hold.call(notes.path, str(n)) for n in range(4))  # one read brings them all
    (begun,) = notes.until(1)
    wait_until(lambda: look().in_flight == 4, lambda: f"four prefetched: {look().pending}")
    os.kill(begun.pid, signal.SIGKILL)
    worker.until("worker process died")
    wait_until(lambda: look().suspects, "the one that had begun is suspected")
    suspects = look().suspects
    (suspicion,) = suspects.values()
    assert suspicion.startswith("1,0,")
    assert "signal 9 (SIGKILL)" in suspicion
    notes.go()
    pasts = {handle.result(timeout=20) for handle in handles if handle.id == handles[int(begun.text)].id}
    assert pasts == {(1, 1)}
    rest = [handle.result(timeout=20) for n, handle in enumerate(handles) if n != int(begun.text)]
    assert rest == [(1, 0)] * 3
    runs = notes.runs()
    assert len(runs) == 5
    assert len(notes.runs(begun.text)) == 2
    assert worker.children != [begun.pid]
    assert look().suspects == {}


def test_a_process_that_dies_while_it_is_registered_makes_nobody_deaf(start, server, namespace, app, keys):
    app.configure({"url": server.url})
    task = app.task(name=faults.nothing.name)(faults.nothing.function)
    own = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    worker = start(redis_url=server.url, ttl_s=9.0)
    (first,) = worker.children
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not own.run(plain("HLEN", keys.consumers)), "the dead one is handed over")
    os.kill(server.pid, signal.SIGSTOP)
    (second,) = wait_until(lambda: [pid for pid in worker.children if pid != first], "the next one is there")
    time.sleep(1.5)  # the fault itself: its registration waits for Redis; a command may for 3 s
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: worker.text().count("worker process died") == 2, "its death is seen")
    os.kill(server.pid, signal.SIGCONT)
    assert task.enqueue(7).result(timeout=20) == 7
    wait_until(lambda: own.run(plain("HLEN", keys.consumers)) == 1, "only who lives is registered")
    (name,) = own.run(plain("HKEYS", keys.consumers))
    (alive,) = own.run(plain("KEYS", keys.alive("*").replace("[", "\\[")))
    assert alive.decode() == keys.alive(name.decode())
    assert "failed" not in worker.text()
    own.close()


def test_a_killed_supervisor_takes_its_child_along_and_an_idle_peer_goes_on(start, send, notes, look):
    # Nothing new is enqueued after the kill: the idle peer has to find the work by itself.
    first = start()
    handle = send(faults.hold, notes.path, "one")
    (begun,) = notes.until(1)
    start()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    wait_until(lambda: is_gone(begun.pid), "the child dies with its supervisor")
    again = notes.until(2, within_s=10 * TTL_S)[1]
    assert again.pid != begun.pid
    (suspicion,) = look().suspects.values()
    assert suspicion.startswith("0,1,")  # lost, not crashed: nobody saw it die
    notes.go()
    assert handle.result(timeout=10) == (1, 0)
    assert [record.attempt for record in look().journal] == [1]
    assert look().suspects == {}
    assert "draining" not in first.text()  # its child had no time for that


def test_prefetched_tasks_of_a_killed_worker_are_run_by_an_idle_peer(start, send, app, notes, look):
    first = start(slots=5, threads=1)
    hold = send.declared(faults.hold_in_thread)
    handles = app.enqueue_many(hold.call(notes.path, str(n)) for n in range(5))  # one read brings them all
    (begun,) = notes.until(1)
    wait_until(lambda: look().in_flight == 5, "all five read")
    start(slots=5)
    first.kill()
    notes.until(6)
    notes.go()
    assert [handle.result(timeout=10) for handle in handles] == [(1, 0)] * 5
    assert sorted(run.text for run in notes.runs()) == sorted([*"01234", begun.text])
    assert set(successes(look()).values()) == {1}


def test_what_vanished_with_ten_workers_goes_to_the_dead_letters(start, send, notes, look, driver, keys):
    first = start()
    handle = send(faults.hold, notes.path, "one")
    notes.until(1)
    ((lane, pending),) = look().pending.items()
    (entry,) = pending
    # As if nine workers had vanished with it before.
    driver.run(plain("HSET", keys.suspects, f"{lane}/{entry}", "0,9,worker x vanished"))
    start()
    first.kill()
    wait_until(lambda: handle.id in look().dead, "given up", within_s=10 * TTL_S)
    letter = look().dead[handle.id]
    assert letter.reason == "lost"
    assert "10 times" in letter.failure.message
    assert len(notes.runs()) == 1


def test_after_one_crash_what_died_together_runs_side_by_side_again(start, send, notes, look):
    start(slots=10)
    handles = [send(faults.hold, notes.path, str(n)) for n in range(4)]
    begun = notes.until(4)
    os.kill(begun[0].pid, signal.SIGKILL)
    again = notes.until(8)[4:]  # all four hold, so each is seen in progress beside the others
    assert sorted((run.text, run.attempt, run.crashes) for run in again) == [(str(n), 1, 1) for n in range(4)]
    late = send(faults.note, notes.path, "late")
    assert late.result(timeout=10) == (1, 0)  # and new work is taken up beside them
    notes.go()
    assert [handle.result(timeout=10) for handle in handles] == [(1, 1)] * 4
    assert look().suspects == {}


@pytest.mark.parametrize(("how", "evidence"), [("kill", "signal 9 (SIGKILL)"), ("exit", "status 7")])
def test_a_poison_message_is_quarantined_and_its_neighbours_are_not(start, send, notes, look, how, evidence):
    start(slots=10)
    bad = send(faults.poison, notes.path, "poison", how, 3)
    others = [send(faults.hold, notes.path, str(n)) for n in range(3)]
    wait_until(lambda: bad.id in look().dead, lambda: f"quarantined: {notes.runs()} {look().suspects}", within_s=20)
    letter = look().dead[bad.id]
    assert letter.reason == "quarantined"
    assert "3 times" in letter.failure.message
    assert evidence in letter.failure.message
    assert letter.task == faults.poison.name
    assert letter.failure.traceback.startswith("the last log lines of that process:\n")
    last = letter.failure.traceback.splitlines()[-1]
    assert f"about to end: {how}" in last
    assert bad.id in last
    assert letter.attempt.startswith("1,3,")
    # Two crashes may have been anybody's. The third was its own: nothing ran beside it.
    poisoned = notes.runs("poison")
    assert [(run.attempt, run.crashes) for run in poisoned] == [(1, 0), (1, 1), (1, 2)]
    assert not [run for run in notes.runs() if run.text != "poison" and run.pid == poisoned[2].pid]
    notes.go()
    pasts = [handle.result(timeout=20) for handle in others]
    assert {attempt for attempt, _ in pasts} == {1}
    assert max(crashes for _, crashes in pasts) <= 2
    assert set(look().dead) == {bad.id}
    assert send(faults.nothing, 5).result(timeout=10) == 5
    assert look().suspects == {}


def test_what_crashed_twice_before_a_retry_still_runs_alone(start, send, notes, look):
    # The count travels in the attempt record then, not among the suspects.
    worker = start(slots=10)
    handle = send(faults.hold, notes.path, "bad")
    for crashes in range(2):
        begun = notes.until(crashes + 1)[crashes]
        os.kill(begun.pid, signal.SIGKILL)
    alone = notes.until(3)[2]
    assert (alone.attempt, alone.crashes) == (1, 2)
    other = send(faults.hold, notes.path, "other")
    notes.go("bad", "raise")
    assert notes.until(4)[3].text == "other"
    wait_until(lambda: look().due == {} and look().in_flight == 2, "retried, and read again")
    notes.hold("bad")
    late = send(faults.note, notes.path, "late")
    assert not late.wait(timeout=0.5)  # nothing is read while the suspect waits for its turn
    assert len(notes.runs()) == 4
    notes.go()
    assert handle.result(timeout=10) == (2, 2)
    assert other.result(timeout=10) == (1, 0)
    assert late.result(timeout=10) == (1, 0)
    assert worker.children == [alone.pid]


def test_a_crash_of_a_killable_process_counts_for_its_own_task_only(start, send, notes, look):
    start(slots=4)
    neighbour = send(faults.hold_in_thread, notes.path, "neighbour")
    notes.until(1)
    bad = send(faults.die_in_process, notes.path, "bad")
    wait_until(lambda: bad.id in look().dead, "quarantined", within_s=20)
    letter = look().dead[bad.id]
    assert letter.reason == "quarantined"
    assert "status 7" in letter.failure.message
    assert [(run.attempt, run.crashes) for run in notes.runs("bad")] == [(1, 0), (1, 1), (1, 2)]
    notes.go()
    assert neighbour.result(timeout=10) == (1, 0)
    assert len(notes.runs("neighbour")) == 1
