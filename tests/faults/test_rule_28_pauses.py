"""Rule 28: what is paused does not begin, and a group goes on once it is resumed."""

from __future__ import annotations

import pytest

from streamwork.errors import StoreFull
from streamwork.model.pausing import held_score, mark_of
from streamwork.store import scripts
from streamwork.store.pausing import pause
from streamwork.worker import runner
from streamwork.worker.consumer import Consumer
from tests.apps import faults
from tests.faults.proof import must_fail
from tests.faults.reader import without
from tests.faults.unguarded import module_without
from tests.helpers import await_until, state_of, wait_until
from tests.redis.flowkit import Flow, g
from tests.redis.kit import LANE, deliver, full, put, signals
from tests.runtime.kit import Bench, with_reader

NOTE = "tests.apps.faults.note"


def unread(consumer, connected, own, keys):
    put(own, keys)

    async def main(at):
        at.side.set_paused(["queue"])
        at.start()
        await await_until(lambda: at.reader._waiting is not None or at.reader._reads, "its first turn is over")

    with_reader(connected, keys, main, LANE, consumer=consumer)
    assert state_of(own, keys).in_flight == 0, "read from a paused queue"


def test_a_paused_queue_is_not_read(connected, own, own_keys):
    unread(Consumer, connected, own, own_keys)


def test_without_a_look_at_the_pause_it_is(connected, own, own_keys):
    consumer = without("paused_queue_unread")
    must_fail("paused_queue_unread", "read from a paused queue", unread, consumer, connected, own, own_keys)


def unadopted(names, connected, own, keys):
    """Two queues are read, one of them is paused, and something was given back to it."""
    (held,) = deliver(own, keys, "w1")
    own.run(scripts.release(keys, LANE, "w1", [(held.entry, 1)]))

    async def main(at):
        if names:
            at.reader.reclaimer.__class__ = module_without("streamwork.worker.reclaimer", *names).Reclaimer
        at.side.set_paused(["queue"])
        at.side.returned.add(LANE)
        await at.reader.reclaimer.adopt([at.side], "me", 1, lambda: 1)
        assert at.taken == [], "taken over from a paused queue"

    with_reader(connected, keys, main, LANE)


def test_what_was_given_back_to_a_paused_queue_stays(connected, own, own_keys):
    unadopted((), connected, own, own_keys)


def test_without_a_look_at_the_pause_it_does_not(connected, own, own_keys):
    name = "paused_queue_unadopted"
    must_fail(name, "taken over from a paused queue", unadopted, (name,), connected, own, own_keys)


def aside(module):
    bench = Bench()

    @bench.app.task
    async def body() -> None: ...

    steps = module.Runner(bench.app.tasks, bench.table, lambda run, item: bench.settled.append((run, item)))
    run = bench.delivery(body)
    assert steps.decode(run)
    bench.queue.set_paused([mark_of(body.name)])
    assert not steps.admit(run), "paused, and it begins"
    end = bench.end_of(run)
    assert (end.op, end.attempt.attempt, end.run_at_ms) == ("R", 1, held_score(body.name))
    bench.table.close()


def test_a_paused_task_is_set_aside_and_costs_no_attempt():
    aside(runner)


def test_without_the_look_it_begins():
    name = "paused_task_aside"
    must_fail(name, "paused, and it begins", aside, module_without("streamwork.worker.runner", name))


def told_again(own, keys):
    for _ in range(2):
        own.run(pause(keys, "queue", b"{}"))
    assert signals(own, keys) == [("pause", "queue")] * 2, "who missed it never hears of it"


def test_a_pause_is_told_each_time(own, own_keys):
    told_again(own, own_keys)


def test_told_only_once_it_may_be_missed(own, own_keys):
    must_fail("pause_told", "never hears of it", told_again, own, own_keys)


def heard(start, send, app, notes, look, without=()):
    start(without=without)
    send(faults.note, notes.path, "before").result(timeout=10)
    app.pause(task=NOTE, queue="default")

    def is_aside():
        send(faults.note, notes.path, "paused")
        return look().due

    wait_until(is_aside, "a worker that runs to heed a pause", 3)
    app.resume(task=NOTE)


def test_a_worker_that_runs_hears_of_a_pause(start, send, app, notes, look):
    heard(start, send, app, notes, look)


def test_without_an_ear_for_it_it_does_not(start, send, app, notes, look):
    name = "pause_heard"
    must_fail(name, "to heed a pause", heard, start, send, app, notes, look, without=(name,))


def known(start, send, app, notes, without=()):
    send(faults.nothing, 1)
    app.pause(task=send.declared(faults.note), queue="default")
    send(faults.note, notes.path, "paused")
    assert start(args=("--burst",), without=without, ready=False).wait() == 0
    assert notes.runs() == [], "paused before the worker started, and it ran"
    app.resume(task=NOTE)


def test_a_worker_that_starts_knows_what_is_paused(start, send, app, notes):
    known(start, send, app, notes)


def test_without_the_marks_of_before_it_begins(start, send, app, notes):
    name = "pauses_fetched"
    must_fail(name, "before the worker started", known, start, send, app, notes, without=(name,))


def resumed(start, send, app, notes, without=()):
    app.pause(task=send.declared(faults.note), queue="default")
    start(without=without)
    waiting = send(faults.note, notes.path, "paused")
    assert not waiting.wait(timeout=0.3)
    app.resume(task=NOTE)
    assert waiting.wait(timeout=5), "resumed, and it waits on"


def test_what_was_paused_goes_on_at_once(start, send, app, notes):
    send(faults.nothing, 1)
    resumed(start, send, app, notes)


def test_without_a_nudge_it_goes_on_at_the_next_look(start, send, app, notes):
    send(faults.nothing, 1)
    name = "unhold_nudged"
    must_fail(name, "it waits on", resumed, start, send, app, notes, without=(name,))


def group_of(own, keys):
    """A group that is paused has a message in its line, and another group had its turn meanwhile."""
    flow = Flow(own, keys)
    flow.run("HSET", keys.flow_state, "*", 1)
    own.run(pause(keys, mark_of(None, "a"), b"{}"))
    flow.send(g("g:b"))
    waiting, _ = flow.send(g("g:a"))
    for delivery in flow.read():
        flow.end(delivery)
    assert flow.parked() == waiting
    return flow, waiting


def group_resumed(own, keys):
    flow, waiting = group_of(own, keys)
    own.run(pause(keys, mark_of(None, "a"), b""))
    flow.promote()
    assert flow.on_lane() == waiting, "a group waits on after its pause"


def full_and_resumed(own, keys):
    flow, _ = group_of(own, keys)
    with full(own):
        try:
            own.run(pause(keys, mark_of(None, "a"), b""))
        except StoreFull:
            pass
        assert not flow.run("HEXISTS", keys.paused, "group:a"), "nothing can be resumed where Redis is full"


SCENARIOS = {
    "resumed_looked_at": (group_resumed, "waits on after its pause"),
    "resumed_when_full": (full_and_resumed, "where Redis is full"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_paused_goes_on(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_of_a_pause_it_does_not(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)
