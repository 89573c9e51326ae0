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
