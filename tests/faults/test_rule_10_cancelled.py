"""Rule 10: what was cancelled does not begin, whoever reads it, and its mark goes with it."""

from __future__ import annotations

import asyncio

from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.wire.message import encode_result
from streamwork.worker import control, runner
from tests.apps import faults
from tests.faults.proof import must_fail
from tests.faults.reader import is_blocked
from tests.faults.unguarded import module_without
from tests.helpers import await_until, state_of
from tests.redis.kit import LANE, deliver, settle, signals
from tests.runtime.kit import Bench

RECORD = encode_result("cancel", "cancelled", b"\xc0")


def cancel(driver, keys, delivery):
    where = {"lane": LANE, "entry": delivery.entry.decode()}
    return driver.run(scripts.cancel(keys, delivery.task_id, "me", RECORD, 60_000, "me", **where))


def heeded(module):
    bench = Bench()

    @bench.app.task
    async def body() -> None: ...

    steps = module.Runner(bench.app.tasks, bench.table, lambda run, item: bench.settled.append((run, item)))
    run = bench.delivery(body)
    assert steps.decode(run)
    bench.queue.cancelled.add(run.message.id)
    assert not steps.admit(run), "cancelled, and it runs"
    assert bench.end_of(run).state == "cancelled"
    bench.table.close()


def test_a_marked_message_does_not_begin():
    heeded(runner)


def test_without_the_look_it_does():
    must_fail(
        "cancel_mark_heeded", "and it runs", heeded, module_without("streamwork.worker.runner", "cancel_mark_heeded")
    )


def cancelled_before_the_start(send, notes, start, without=()):
    handles = [send(faults.note, notes.path, text) for text in ("kept", "dropped")]
    assert handles[1].cancel() == "requested"
    worker = start(args=("--burst",), without=without, ready=False)
    assert worker.wait() == 0
    assert [run.text for run in notes.runs()] == ["kept"], "cancelled before the worker started, and it ran"
    assert handles[1].state() == "cancelled"


def test_a_worker_that_starts_knows_what_was_cancelled(send, notes, start):
    cancelled_before_the_start(send, notes, start)


def test_without_the_marks_of_before_it_runs_it(send, notes, start):
    name = "cancel_marks_fetched"
    must_fail(name, "before the worker started", cancelled_before_the_start, send, notes, start, without=(name,))


def told(own, keys):
    (delivery,) = deliver(own, keys, "w1")
    assert cancel(own, keys, delivery) == "requested"
    assert signals(own, keys)[-1] == ("cancel", delivery.task_id), "no worker hears of it"


def test_who_runs_hears_what_is_cancelled(own, own_keys):
    told(own, own_keys)


def test_without_the_signal_nobody_hears(own, own_keys):
    must_fail("cancel_told", "no worker hears", told, own, own_keys)


def swamped(module, connected, own, keys):
    """More is cancelled, while the supervisor is held up, than its stream of signals keeps."""
    held = deliver(own, keys, "w1", 1_500)
    known, looks = set(), []

    async def main():
        driver = connected(30.0)

        async def refresh():
            known.update(each.decode() for each in own.run(plain("HKEYS", keys.cancelled)))
            looks.append(len(known))

        listener = module.Control(driver, keys, lambda event, value: known.add(value), refresh)
        listening = asyncio.create_task(listener.run())
        await await_until(lambda: looks and is_blocked(own, "xread"), "it listens")
        for delivery in held:
            cancel(own, keys, delivery)  # blocks this loop, and with it the listener
        assert len(looks) == 1
        await await_until(lambda: held[-1].task_id in known and is_blocked(own, "xread"), "it has heard it all", 30)
        listening.cancel()
        await asyncio.wait({listening})
        await driver.close()

    asyncio.run(main())
    assert {delivery.task_id for delivery in held} <= known, "cancelled, and nobody knows"


def test_a_flood_of_cancels_is_known_to_the_last(connected, own, own_keys):
    swamped(control, connected, own, own_keys)


def test_without_a_look_what_was_trimmed_runs(connected, own, own_keys):
    module = module_without("streamwork.worker.control", "missed_signals")
    must_fail("missed_signals", "and nobody knows", swamped, module, connected, own, own_keys)


def freed(own, keys):
    for delivery, op in zip(deliver(own, keys, "w1", 4), "SKCD", strict=True):
        assert cancel(own, keys, delivery) == "requested"
        assert settle(own, keys, delivery, op)
    assert state_of(own, keys).cancelled == {}, "a mark without a TTL outlives its message"


def test_a_mark_goes_with_its_message(own, own_keys):
    freed(own, own_keys)


def test_without_that_it_stays_for_good(own, own_keys):
    must_fail("cancel_mark_freed", "outlives its message", freed, own, own_keys)
