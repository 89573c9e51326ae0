"""What a live worker lost track of, or was given back on an idle queue, is found although nothing new is sent."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.worker import selfcheck as worker_module
from streamwork.worker.embedded import EmbeddedWorker
from tests.apps import faults
from tests.helpers import await_until, body_of, seed


@pytest.fixture
def quick_audit(monkeypatch):
    """Two looks of the audit, 30 s apart in a daemon, within a tenth of a second."""
    monkeypatch.setattr(worker_module, "AUDIT_S", 0.05)


def run_beside(app, work, **settings):
    """Run `await work(worker)` beside an embedded worker of the app."""

    async def main():
        worker = EmbeddedWorker(app, {"worker.slots": 1, "liveness.ttl_s": 5, **settings})
        await worker.start()
        try:
            await work(worker)
        finally:
            await worker.stop(now=True)
            await app.aclose()

    asyncio.run(main())


def read_as(driver, consumer, stream):
    """Read the next entry of a stream under a consumer's name; returns its id."""
    reply = driver.run(plain("XREADGROUP", "GROUP", "workers", consumer, "COUNT", 1, "STREAMS", stream, ">"))
    ((_, ((entry, _),)),) = reply
    return entry


def test_an_entry_that_its_live_owner_never_saw_is_found_by_the_audit(
    app, send, notes, driver, keys, look, quick_audit, caplog
):
    hold = send.declared(faults.hold)

    async def work(worker):
        first = await hold.aenqueue(notes.path, "first")
        await await_until(notes.runs, "its only slot is taken")
        lost = await hold.aenqueue(notes.path, "lost")
        read_as(driver, worker.worker.name, keys.lane("1:"))  # as if the reply had never reached it
        notes.go()
        assert await first.aresult(10) == (1, 0)
        assert await lost.aresult(10) == (1, 0)

    run_beside(app, work)
    assert [run.text for run in notes.runs()] == ["first", "lost"]
    assert "own entries found again" in caplog.text
    assert look().backlog == 0


def test_a_worker_without_a_free_slot_gives_back_what_it_finds(app, send, notes, driver, keys, look, quick_audit):
    hold = send.declared(faults.hold)

    async def work(worker):
        await hold.aenqueue(notes.path, "first")
        await await_until(notes.runs, "its only slot is taken")
        lost = await hold.aenqueue(notes.path, "lost")
        entry = read_as(driver, worker.worker.name, keys.lane("1:")).decode()
        await await_until(lambda: look().pending["1:"][entry][0] == "returned", "given back, for anybody to take")
        notes.go()
        assert await lost.aresult(10) == (1, 0)

    run_beside(app, work)
    assert [run.text for run in notes.runs()] == ["first", "lost"]


def test_an_audit_leaves_alone_what_is_held(app, send, notes, look, quick_audit, caplog):
    hold = send.declared(faults.hold)

    async def work(worker):
        handles = [await hold.aenqueue(notes.path, str(n)) for n in range(4)]
        await await_until(lambda: len(notes.runs()) == 4, "all run")
        audits = 0
        inner, audit = worker.worker, worker.worker.consumer.reclaimer.audit

        async def counted(*args):
            nonlocal audits
            audits += 1
            return await audit(*args)

        inner.consumer.reclaimer.audit = counted
        await await_until(lambda: audits >= 4, "several audits")
        notes.go()
        for handle in handles:
            assert await handle.aresult(10) == (1, 0)

    run_beside(app, work, **{"worker.slots": 4})
    assert len(notes.runs()) == 4
    assert "own entries found again" not in caplog.text


def test_what_was_given_back_on_an_idle_queue_is_taken_at_once(app, send, driver, keys, look):
    send.declared(faults.nothing)

    async def work(worker):
        task_id, body = body_of(faults.nothing.name, 1)
        await await_until(lambda: worker.worker.is_idle, "idle")
        (entry,) = seed(driver, keys, body, lane="1:backend")  # a lane that this worker does not read
        read_as(driver, "somebody", keys.lane("1:backend"))
        assert driver.run(scripts.release(keys, "1:backend", "somebody", [(entry.encode(), 1)])) == 1
        assert look().pending["1:backend"][entry][0] == "returned"
        worker.worker.tags = frozenset({"backend"})
        worker.tell()
        await await_until(lambda: driver.run(plain("EXISTS", keys.result(task_id))), "adopted", within_s=10)

    run_beside(app, work, **{"worker.block_s": 30})
    assert look().backlog == 0


def test_what_the_audit_finds_beside_a_busy_reader_costs_no_slot(app, send, driver, keys, look, monkeypatch):
    monkeypatch.setattr(worker_module, "AUDIT_S", 0.01)
    wait = send.declared(faults.wait)

    async def work(worker):
        inner, most, handles = worker.worker, 0, []
        for _ in range(60):
            handles += [await wait.aenqueue(0.005) for _ in range(3)]
            # As if the reply had never reached it.
            driver.run(plain("XREADGROUP", "GROUP", "workers", inner.name, "COUNT", 1, "STREAMS", keys.lane("1:"), ">"))
            most = max(most, inner.in_hand)
            await asyncio.sleep(0.004)
        for handle in handles:
            assert await handle.aresult(20) is None
        await await_until(lambda: not inner._hand.held, "all is settled")
        assert (most <= 2, inner.in_hand, len(inner._intake.rows)) == (True, 0, 8)

    run_beside(app, work, **{"worker.slots": 2})
    assert look().backlog == 0


def test_a_lane_that_is_a_stream_again_is_read_again(app, send, driver, keys, quick_audit, caplog):
    nothing = send.declared(faults.nothing)
    high = nothing.options(priority=7)

    async def work(worker):
        assert await (await high.aenqueue(1)).aresult(10) == 1
        driver.run(plain("DEL", keys.lane("2:")))
        driver.run(plain("SET", keys.lane("2:"), "x"))
        await await_until(lambda: "a lane's key is no stream" in caplog.text, "it is noticed")
        assert await (await nothing.aenqueue(2)).aresult(10) == 2
        driver.run(plain("DEL", keys.lane("2:")))
        assert await (await high.aenqueue(3)).aresult(10) == 3

    run_beside(app, work)
    assert "reading refused" not in caplog.text


def test_marks_of_what_has_ended_elsewhere_are_forgotten(app, send, driver, keys, quick_audit):
    send.declared(faults.nothing)

    async def work(worker):
        worker.worker.cancel_asked("default", ["ended", "waits"])
        driver.run(plain("HSET", keys.cancelled, "waits", "1"))
        (queue,) = worker.worker._queues
        await await_until(lambda: queue.cancelled == {"waits"}, lambda: f"one is left: {queue.cancelled}")
        driver.run(plain("HDEL", keys.cancelled, "waits"))
        await await_until(lambda: not queue.cancelled, "none is left")

    run_beside(app, work)
