"""Cancelled while it runs, anywhere: how the body hears of it, what is committed, and whom it does not concern."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from streamwork import ResultTimeout, TaskCancelled
from streamwork.store.commands import plain
from streamwork.worker import selfcheck
from streamwork.worker.control import Control
from streamwork.worker.embedded import EmbeddedWorker
from tests.apps import limits
from tests.helpers import await_until, wait_until
from tests.system.kit import is_gone, successes

APP = "tests.apps.limits:app"
BODIES = {"async": limits.hold, "thread": limits.hold_in_thread, "process": limits.hold_in_process}


def cancelled(handle, look, text="cancelled while it ran"):
    """Wait for the end, and check that this is the one outcome and that no mark is left."""
    with pytest.raises(TaskCancelled, match=text) as caught:
        handle.result(timeout=15)
    assert (caught.value.code, caught.value.state, handle.state()) == ("task_cancelled", "cancelled", "cancelled")
    state = look()
    assert [record.state for record in state.journal if record.id == handle.id] == ["cancelled"]
    assert handle.id not in state.cancelled
    assert handle.id not in state.due
    return state


@pytest.mark.parametrize("how", BODIES)
def test_a_run_is_ended_where_it_runs_and_not_tried_again(start, send, notes, look, how):
    worker = start(APP, processes=2)
    handle = send(BODIES[how], notes.path, "held")
    (run,) = notes.until(1, 20)
    assert handle.cancel(terminate=True) == "requested"
    state = cancelled(handle, look)
    assert state.counts == {"cancelled": 1}
    if how == "process":
        wait_until(lambda: is_gone(run.pid), "its process is killed")
        assert [each.text for each in notes.runs()] == ["held"]
    else:
        assert [each.text for each in notes.until(3)] == ["held", "cancelled", "cleaned"]
        assert not is_gone(run.pid)
    assert handle.cancel(terminate=True) == "ended"  # a second time, it is too late
    assert worker.process.poll() is None


def test_the_request_wakes_who_is_to_hear_it(app, send, notes, monkeypatch):
    """All that looks now and then looks long after this test has given up: only the control connection is left."""
    monkeypatch.setattr(Control, "BLOCK_MS", 3_600_000)
    monkeypatch.setattr(selfcheck, "AUDIT_S", 3_600.0)
    hold = send.declared(limits.hold)

    async def main():
        embedded = EmbeddedWorker(app, {"worker.slots": 2, "worker.block_s": 3_600.0})
        await embedded.start()
        try:
            # What a new connection asks for might bring the first one; that it was heard shows that they are there.
            for number in (1, 2):
                handle = await hold.aenqueue(notes.path, f"n{number}")
                await await_until(lambda: notes.runs(f"n{number}"), "it runs")  # noqa: B023
                assert await handle.acancel(terminate=True) == "requested"
                await await_until(lambda: len(notes.runs("cancelled")) == number, "it hears")  # noqa: B023
                with pytest.raises(TaskCancelled):
                    await handle.aresult(10)
        finally:
            await embedded.stop(now=True)
            await app.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("how", BODIES)
def test_only_the_run_that_was_meant_is_hit(start, send, notes, look, how):
    start(APP, processes=1, slots=4)
    first, second = send(BODIES[how], notes.path, "first"), send(BODIES[how], notes.path, "second")
    notes.until(2, 20)
    first.cancel(terminate=True)
    cancelled(first, look)
    third = send(BODIES[how], notes.path, "third")  # maybe in the slot of the first
    wait_until(lambda: notes.runs("third"), "the third runs", 20)
    assert (second.state(), third.state()) == ("running", "running")
    notes.go()
    assert (second.result(timeout=15), third.result(timeout=15)) == ((1, 0), (1, 0))
    assert set(successes(look())) == {second.id, third.id}


def test_a_second_request_does_not_disturb_the_clean_up(start, send, notes, look):
    start(APP)
    handle = send(limits.hold, notes.path, "held")
    notes.until(1)
    assert [handle.cancel(terminate=True) for _ in range(3)].count("requested") >= 1
    cancelled(handle, look)
    assert [run.text for run in notes.until(3)] == ["held", "cancelled", "cleaned"]


def test_a_body_that_fails_in_its_clean_up_is_cancelled_all_the_same(start, send, notes, look):
    start(APP)
    handle = send(limits.clean_up_badly, notes.path, "held", retry=None)
    notes.until(1)
    handle.cancel(terminate=True)
    cancelled(handle, look)
    assert len(notes.runs()) == 1


def test_a_body_that_ignores_it_goes_on_and_is_shown_so_until_it_ends(start, send, notes, look, keys, driver):
    start(APP)
    handle = send(limits.ignore, notes.path, "held")
    notes.until(1)
    handle.cancel(terminate=True)
    wait_until(lambda: notes.runs("ignored"), "it ignores that")
    assert handle.state() == "cancelling"
    notes.go()
    assert handle.result(timeout=15) == (1, 0)  # what it returned counts
    state = look()
    assert (state.counts, state.cancelled) == ({"succeeded": 1}, {})


def test_a_plain_cancel_lets_it_run_but_not_again(start, send, notes, look):
    start(APP)
    handle = send(limits.hold, notes.path, "held")
    notes.until(1)
    assert (handle.cancel(), handle.state()) == ("requested", "running")
    notes.go(how="raise")
    cancelled(handle, look, "cancelled before it ran again")
    assert not notes.runs("cancelled")


@pytest.mark.parametrize("how", BODIES)
def test_a_cancel_that_races_success_commits_one_outcome(start, app, send, notes, look, how):
    start(APP, processes=2, slots=4)
    task = send.declared(BODIES[how])
    notes.go()
    handles = []
    for number in range(40):
        handles.append(task.enqueue(notes.path, f"n{number}"))
        if number % 2:
            handles[-1].cancel(terminate=True)
    for handle in handles:
        assert handle.wait(timeout=20)
    state = look()
    ends = [record for record in state.journal if record.state in ("succeeded", "cancelled")]
    assert sorted(record.id for record in ends) == sorted(handle.id for handle in handles)
    assert {record.id: record.state for record in ends} == {handle.id: handle.state() for handle in handles}
    assert (state.cancelled, sum(state.counts.values())) == ({}, 40)


def test_what_waits_behind_others_in_its_process_ends_without_a_run(start, send, notes, look):
    start(APP, processes=1, slots=4, threads=1)
    first, second = (send(limits.hold_in_thread, notes.path, text) for text in ("first", "second"))
    notes.until(1)
    wait_until(lambda: second.state() == "running", "it is in hand")
    assert second.cancel() == "requested"
    cancelled(second, look, "cancelled before it ran")
    notes.go()
    assert first.result(timeout=15) == (1, 0)
    assert not notes.runs("second")


def test_between_the_death_of_its_worker_and_the_next_run(start, send, notes, look, driver, keys):
    first = start(APP, processes=1)
    handle = send(limits.hold, notes.path, "held")
    (run,) = notes.until(1)
    first.process.kill()
    wait_until(lambda: is_gone(run.pid), "its worker is dead")
    assert handle.cancel(terminate=True) == "requested"
    start(APP, processes=1)
    cancelled(handle, look, "cancelled before it ran")
    assert len(notes.runs()) == 1


def test_a_process_that_follows_a_dead_one_knows_what_was_cancelled(start, send, notes, look):
    worker = start(APP, processes=1)
    handle = send(limits.hold, notes.path, "held")
    (run,) = notes.until(1)
    os.kill(run.pid, signal.SIGSTOP)  # it does not hear, its supervisor does
    assert handle.cancel(terminate=True) == "requested"
    os.kill(run.pid, signal.SIGKILL)
    cancelled(handle, look, "cancelled before it ran")
    assert len(notes.runs()) == 1
    assert worker.process.poll() is None


def test_a_run_that_failed_as_it_was_asked_for_does_not_wait_for_its_next_try(driver, send, notes, look, start):
    """The failure is settled by a process that has not heard: it goes back to due with the mark."""
    worker = start(APP, processes=1, args=("--burst",), ready=False)
    handle = send(limits.hold, notes.path, "held", retry=limits.Retry(max_attempts=5, base=3600, jitter=False))
    notes.until(1)
    os.kill(worker.pid, signal.SIGSTOP)  # the supervisor: nobody passes it on
    assert handle.cancel(terminate=True) == "requested"
    notes.go(how="raise")
    wait_until(lambda: look().counts.get("retried"), "it failed")
    assert handle.state() == "cancelling"
    os.kill(worker.pid, signal.SIGCONT)
    with pytest.raises(TaskCancelled):
        handle.result(timeout=15)
    assert (look().cancelled, len(notes.runs("held"))) == ({}, 1)


def test_what_needs_a_tag_that_nobody_offers_says_that_it_is_being_cancelled(send, notes, driver, keys, look, start):
    handle = send(limits.hold, notes.path, "held", tags={"nobody"})
    assert handle.cancel(terminate=True) == "requested"
    assert handle.state() == "cancelling"
    with pytest.raises(ResultTimeout, match="it is cancelled, and a worker has yet to drop it"):
        handle.result(timeout=0.1)
    assert driver.run(plain("HLEN", keys.cancelled)) == 1
    start(APP, tags="nobody")
    cancelled(handle, look, "cancelled before it ran")
    assert notes.runs() == []
