"""Who is alive keeps its work however long it takes; who was frozen past its life writes nothing twice."""

from __future__ import annotations

import os
import signal

import pytest

from streamwork.store.commands import plain
from tests.apps import faults
from tests.helpers import wait_until
from tests.system.kit import TTL_S, deaths, successes, until_reaped


def freeze(worker):
    os.killpg(worker.pid, signal.SIGSTOP)


def thaw(worker):
    os.killpg(worker.pid, signal.SIGCONT)


@pytest.mark.parametrize("task", [faults.hold, faults.hold_in_thread], ids=["async", "thread"])
def test_a_task_of_three_lives_is_not_taken_by_an_idle_peer(start, send, notes, driver, keys, look, task):
    first = start()
    handle = send(task, notes.path, "long")
    notes.until(1)
    peer = start()
    until_reaped(driver, keys, 8)  # one look each 0.38 lives
    assert len(notes.runs()) == 1
    notes.go()
    assert handle.result(timeout=10) == (1, 0)
    assert len(notes.runs()) == 1
    assert deaths(first, peer) == []


@pytest.mark.parametrize(
    "task", [faults.hold_interpreter, faults.hold_interpreter_in_thread], ids=["on the loop", "in a thread"]
)
def test_a_body_that_holds_the_interpreter_for_three_lives_keeps_its_lease(start, send, notes, look, task):
    first = start()
    handle = send(task, notes.path, "long", 3 * TTL_S)
    notes.until(1)
    peer = start()
    assert handle.result(timeout=10 * TTL_S) == (1, 0)
    assert len(notes.runs()) == 1
    assert deaths(first, peer) == []
    assert look().suspects == {}
    # The worker that was deaf for so long goes on: it reads again, since its beats never stopped.
    peer.kill()
    assert send(faults.nothing, 3).result(timeout=10) == 3


def test_a_frozen_workers_late_success_is_refused_and_it_starts_anew(start, send, notes, look):
    zombie = start()
    handle = send(faults.hold, notes.path, "one")
    (begun,) = notes.until(1)
    peer = start()
    freeze(zombie)
    again = notes.until(2, within_s=10 * TTL_S)[1]
    notes.go()
    assert handle.result(timeout=10) == (1, 0)
    assert again.pid in peer.children
    thaw(zombie)
    zombie.until("lease lost")
    zombie.until("fenced")
    state = look()
    assert successes(state) == {handle.id: 1}
    assert state.journal[0].consumer in peer_names(look, peer)
    peer.kill()
    assert send(faults.note, notes.path, "after").result(timeout=10 * TTL_S) == (1, 0)
    assert notes.runs("after")[0].pid == begun.pid


def peer_names(look, worker):
    """Return the consumers of a worker that are registered."""
    return [name for name in look().consumers if f"-{worker.pid}-" in name]


def test_a_frozen_workers_success_may_still_be_the_one_that_counts(start, send, notes, look):
    zombie = start()
    handle = send(faults.hold, notes.path, "one")
    (begun,) = notes.until(1)
    peer = start()
    freeze(zombie)
    again = notes.until(2, within_s=10 * TTL_S)[1]
    notes.go(begun.pid)
    thaw(zombie)
    assert handle.result(timeout=10) == (1, 0)
    notes.go(again.pid)
    peer.until("lease lost")
    state = look()
    assert successes(state) == {handle.id: 1}
    assert state.backlog == 0


def test_a_frozen_workers_late_retry_is_refused(start, send, notes, look):
    zombie = start()
    handle = send(faults.hold, notes.path, "one")
    (begun,) = notes.until(1)
    start()
    freeze(zombie)
    again = notes.until(2, within_s=10 * TTL_S)[1]
    notes.go(begun.pid, "raise")
    thaw(zombie)
    zombie.until("lease lost")
    state = look()
    assert (state.due, state.journal) == ({}, [])
    assert state.in_flight == 1
    notes.go(again.pid)
    assert handle.result(timeout=10) == (1, 0)
    assert [(record.state, record.attempt) for record in look().journal] == [("succeeded", 1)]
    assert len(notes.runs()) == 2


def test_a_frozen_supervisor_alone_stops_its_childs_reading(start, send, notes, look, driver, keys):
    worker = start()
    assert send(faults.nothing).result(timeout=10) == 0
    (child,) = worker.children
    worker.signal(signal.SIGSTOP)
    (name,) = peer_names(look, worker)
    wait_until(lambda: not driver.run(plain("EXISTS", keys.alive(name))), "its life ends", within_s=5 * TTL_S)
    # The child's blocked read may still be handed this, and its word is worth nothing any more: it gives it back.
    handle = send(faults.note, notes.path, "one")
    peer = start()
    assert handle.result(timeout=10 * TTL_S) == (1, 0)
    assert [run.pid for run in notes.runs()] == peer.children
    peer.until("dead consumer taken")
    worker.signal(signal.SIGCONT)
    worker.until("fenced")
    peer.kill()
    assert send(faults.note, notes.path, "two").result(timeout=10 * TTL_S) == (1, 0)
    assert [run.pid for run in notes.runs("two")] == [child]
