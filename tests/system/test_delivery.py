"""Calls through real workers: typed both ways, once each, in any number, at a bounded cost."""

from __future__ import annotations

import asyncio
import gc
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamwork import ArgumentError, TaskFailed
from streamwork import context as contexts
from streamwork.model.state import State
from streamwork.store.commands import plain
from streamwork.testing.plugin import scan
from streamwork.worker.embedded import EmbeddedWorker
from tests.apps import basic, early, faults, values
from tests.helpers import await_until, wait_until
from tests.system.kit import done, successes


def test_a_worker_is_ready_within_three_seconds_and_gives_the_answer(start, send):
    took_s, workers = [], []
    for _ in range(2):  # 0.6 s each; two, because one may have met the noise of the other tests
        began = time.monotonic()
        workers.append(start("tests.apps.early:app", queues="plain"))  # no process has to import the app as well
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 3
    assert send(early.where).result(timeout=5) in [pid for worker in workers for pid in worker.children]


@pytest.mark.parametrize("task", [basic.add, basic.add_in_thread, basic.add_in_process], ids=lambda task: task.name)
def test_every_executor_answers(start, send, task):
    start("tests.apps.basic:app")
    handles = [send(task, n, 1) for n in range(20)]
    assert [handle.result(timeout=20) for handle in handles] == list(range(1, 21))
    assert handles[0].state() == State.SUCCEEDED


@pytest.mark.parametrize("task", [values.echo_in_thread, values.echo_in_process], ids=lambda task: task.name)
def test_json_hostile_values_come_back_as_they_were(start, send, task):
    start("tests.apps.values:app")
    assert send(task, values.HOSTILE).result(timeout=20) == values.HOSTILE


def test_json_hostile_arguments_by_position_and_name(start, send):
    start("tests.apps.values:app")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    echo = send.declared(values.echo)
    given = (values.HOSTILE, values.Colour.RED, values.Part("x", at.date()), [])
    assert echo.enqueue(*given, at=at).result(timeout=20) == (*given, at)


@pytest.mark.parametrize("argument", [object(), "red", 7, {"colour": "red"}], ids=["object", "text", "number", "dict"])
def test_a_wrong_argument_fails_at_the_caller_and_nothing_is_queued(send, look, argument):
    with pytest.raises(ArgumentError):
        send(values.echo_in_thread, argument)
    assert look().lanes == {}


def test_two_workers_race_and_each_message_runs_once(start, send, app, look, notes):
    start(slots=10), start(slots=10)
    note = send.declared(faults.note)
    handles = app.enqueue_many(note.call(notes.path, str(n)) for n in range(300))
    for handle in handles:
        assert handle.result(timeout=20) == (1, 0)
    assert sorted(int(run.text) for run in notes.runs()) == list(range(300))
    assert len({run.pid for run in notes.runs()}) == 2
    state = look()
    assert successes(state) == {handle.id: 1 for handle in handles}
    assert state.backlog == 0


def test_how_a_body_ends_is_what_the_caller_hears(start, send, look):
    start("tests.apps.basic:app")
    skipped, rejected, later = (send(basic.steer, how) for how in ("skip", "reject", "later"))
    assert skipped.result(timeout=10) is None
    with pytest.raises(TaskFailed, match="not wanted"):
        rejected.result(timeout=10)
    with pytest.raises(TaskFailed, match="later"):
        later.result(timeout=10)
    state = look()
    assert [r.attempt for r in state.journal if r.id == later.id] == [1, 2, 3]
    assert {task_id: letter.reason for task_id, letter in state.dead.items()} == {
        rejected.id: "rejected",
        later.id: "failed",
    }


def test_five_thousand_at_a_thousand_a_second(start, send, app, look, driver, keys):
    # Acceptance 28 is a floor: this machine drains ten times as many; the bench measures.
    start()
    send(faults.nothing).result(timeout=10)
    nothing = send.declared(faults.nothing)
    app.enqueue_many(nothing.call(n) for n in range(5_000))
    wait_until(lambda: done(driver, keys) == 5_001, lambda: f"only {done(driver, keys)} done", within_s=5)
    assert max(successes(look()).values()) == 1


def test_a_worker_weighs_at_most_55_mib(start, send):
    worker = start()
    for handle in [send(faults.nothing, n) for n in range(200)]:
        handle.result(timeout=10)
    sizes = {pid: pss_kib(pid) for pid in [worker.pid, *worker.children]}
    assert len(sizes) == 2
    assert sum(sizes.values()) <= 55 * 1024, sizes


def pss_kib(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def test_ten_thousand_queued_cost_redis_at_most_2_mib(send, app, driver, namespace):
    nothing = send.declared(faults.nothing)
    app.enqueue_many(nothing.call(n) for n in range(10_000))
    keys = {key for batch in scan(driver, namespace) for key in batch}
    sizes = {key: driver.run(plain("MEMORY", "USAGE", key, "SAMPLES", 0)) for key in keys}
    assert sum(sizes.values()) <= 2 * 1024 * 1024, sizes


async def _slow_read_worker(app):
    """A worker of this process that is idle in a long blocking read."""
    worker = EmbeddedWorker(app, {"worker.block_s": 60, "worker.slots": 10})
    await worker.start()
    return worker


def test_a_process_whose_own_worker_idles_submits_at_once(app, send):
    nothing = send.declared(faults.nothing)

    async def main():
        worker = await _slow_read_worker(app)
        try:
            assert await (await nothing.aenqueue(1)).aresult(5) == 1
            await await_until(lambda: worker.worker.is_idle, "idle")
            # Whatever waited for the read to end would take its minute.
            handle = await asyncio.wait_for(nothing.aenqueue(2), 20)
            assert await handle.aresult(20) == 2
        finally:
            await worker.stop()
            await app.aclose()

    asyncio.run(main())


def test_nothing_in_a_worker_process_grows_from_batch_to_batch(app, send):
    nothing, fail = send.declared(faults.nothing), send.declared(faults.unstorable)

    async def batch(n):
        for number in range(0, 300, 50):
            handles = [await nothing.aenqueue(number + i) for i in range(50)]
            for handle in handles:
                await handle.aresult(10)
        bad = await fail.aenqueue()
        with pytest.raises(TaskFailed):
            await bad.aresult(10)
        gc.collect()

    async def sizes(worker):
        inner = worker.worker
        await await_until(lambda: inner.is_idle and not inner._hand.held, "idle")
        results = app.connection.results
        driver = app.connection._loop_side()[0]
        return {
            "held": len(inner._hand.held), "unsent": inner.settler.unsent, "bytes": inner.settler.unsent_bytes,
            "interrupts": len(inner._interrupts), "suspects": len(inner.consumer.reclaimer.suspects),
            "cancelled": sum(len(queue.cancelled) for queue in inner._queues), "waiters": len(results._waiters),
            "contexts": len(contexts._by_task), "waiting": len(inner.driver._waiting) + len(driver._waiting),
            "free rows": len(inner._intake.rows),
        }  # fmt: skip

    async def main():
        worker = EmbeddedWorker(app, {"worker.slots": 20})
        await worker.start()
        try:
            await batch(0)
            first, tasks = await sizes(worker), len(asyncio.all_tasks())
            for n in (1, 2):
                await batch(n)
            assert await sizes(worker) == first
            assert first["free rows"] == 80
            # Slots are made up to the bound and stay.
            assert len(asyncio.all_tasks()) <= tasks + 20
            assert len(app.connection.results._recent) <= 1_000
        finally:
            await worker.stop()
            await app.aclose()

    asyncio.run(main())
