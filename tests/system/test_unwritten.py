"""Between a body's end and its written outcome: who is blamed, what is bounded, and what is not heard any more."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from streamwork import TaskFailed
from streamwork.store.commands import plain
from streamwork.worker.embedded import EmbeddedWorker
from tests.apps import faults, life
from tests.helpers import await_until, wait_until


def beside(app, work, **settings):
    """Run `await work(worker)` beside an embedded worker of the app."""

    async def main():
        embedded = EmbeddedWorker(app, {"worker.slots": 2, **settings})
        await embedded.start()
        try:
            await work(embedded)
        finally:
            await embedded.stop(now=True)
            await app.aclose()

    asyncio.run(main())


def test_a_process_that_dies_before_the_outcome_is_written_blames_the_body_that_ended(start, send, notes, look):
    worker = start("tests.apps.life:app")
    handle = send(life.die_after_the_end, notes.path, "x")
    with pytest.raises(TaskFailed, match="its process died 3 times"):
        handle.result(timeout=20)
    assert [(run.attempt, run.crashes) for run in notes.runs()] == [(1, 0), (1, 1), (1, 2)]
    assert look().dead[handle.id].reason == "quarantined"
    assert worker.process.poll() is None


def test_a_body_that_cancels_the_whole_loop_is_quarantined_and_its_neighbour_ends(start, send, notes, look):
    worker = start("tests.apps.life:app")
    neighbour = send(life.hold, notes.path, "neighbour")
    notes.until(1)
    handle = send(life.cancel_everything, notes.path, "culprit")
    worker.until("a body has cancelled the loops of its worker")
    notes.go()
    with pytest.raises(TaskFailed, match="its process died 3 times"):
        handle.result(timeout=20)
    attempt, crashes = neighbour.result(timeout=10)
    assert (attempt, crashes < 3) == (1, True)
    assert len(notes.runs("culprit")) == 3
    assert "spooled" not in worker.text()
    assert look().in_flight == 0


def test_a_program_that_cancels_all_its_tasks_has_its_outcomes_written(app, send, driver, keys, look, tmp_path):
    nothing = send.declared(faults.nothing)

    async def main():
        embedded = EmbeddedWorker(app, {"worker.slots": 2, "folder": str(tmp_path / "own")})
        await embedded.start()
        inner = embedded.worker
        held, commit = asyncio.Event(), inner.settler._commit

        async def wait_first(chunk):
            await held.wait()
            await commit(chunk)

        inner.settler._commit = wait_first
        await nothing.aenqueue(1)
        await await_until(lambda: inner.settler.unsent == 1, "it has ended, and is not written")
        held.set()
        for task in [task for task in asyncio.all_tasks() if task.get_name().startswith("streamwork-settler")]:
            task.cancel()
        with pytest.raises(Exception, match="cancelled the loops"):
            await embedded.ended()
        assert (inner.unwritten, inner.spooled) == (0, None)
        with pytest.raises(Exception, match="cancelled the loops"):
            await embedded.stop()
        await app.aclose()

    asyncio.run(main())
    assert look().counts == {"succeeded": 1}


def test_nothing_more_is_read_while_outcomes_wait(app, send, look):
    nothing = send.declared(faults.nothing)

    async def work(embedded):
        inner = embedded.worker
        go, commit = asyncio.Event(), inner.settler._commit

        async def wait_first(chunk):
            await go.wait()
            await commit(chunk)

        inner.settler._commit = wait_first
        handles = [await nothing.aenqueue(n) for n in range(30)]
        await await_until(
            lambda: inner.settler.unsent >= 4 and inner.in_hand == 0 and inner.consumer._waiting is not None,
            lambda: f"reading stops: {inner.settler.unsent} unsent, {inner.taken} taken",
        )
        assert inner.taken <= 6
        go.set()
        assert [await handle.aresult(10) for handle in handles] == list(range(30))

    beside(app, work)
    assert look().backlog == 0


def test_what_a_thread_says_after_its_delivery_was_given_back_is_not_heard(app, send, notes, look):
    hold = send.declared(faults.hold_in_thread)

    async def main():
        embedded = EmbeddedWorker(app, {"worker.slots": 1})
        await embedded.start()
        inner = embedded.worker
        await hold.aenqueue(notes.path, "x")
        await await_until(notes.runs, "it runs")
        reclaimer, threads = inner.consumer.reclaimer, inner.executors._threads
        give_back = reclaimer.give_back

        async def then_let_it_end(runs):
            await give_back(runs)
            notes.go()
            await await_until(lambda: threads._idle == 1 and not threads._done, "it has ended, and was heard or not")

        reclaimer.give_back = then_let_it_end
        await embedded.stop(now=True)
        await app.aclose()

    asyncio.run(main())
    state = look()
    assert (state.journal, state.results) == ([], {})
    assert [owner for owner, _ in state.pending["1:"].values()] == ["returned"]


def test_where_neither_redis_nor_the_disk_takes_finished_work_the_status_says_so(start, server, notes, tmp_path, app):
    app.configure({"url": server.url})
    worker = start("tests.apps.life:app", redis_url=server.url, drain_timeout_s=0.3)
    app.task(name=life.hold.name)(life.hold.function).enqueue(notes.path, "x")
    notes.until(1)
    server.stop()
    (tmp_path / ".streamwork").write_text("no folder")
    notes.go()
    worker.signal()
    assert worker.wait() == 3
    assert "outcomes could not be spooled" in worker.text()
    assert "Traceback" not in worker.text()


def test_each_process_takes_no_more_than_its_max_tasks(start, send, app):
    start("tests.apps.life:app", max_tasks=3, slots=10)
    pid = send.declared(life.pid)
    pids = [handle.result(timeout=30) for handle in app.enqueue_many(pid.call() for _ in range(9))]
    assert {pids.count(one) for one in pids} == {3}


def test_a_lifespan_that_raises_at_its_end_is_one_line(start, tmp_path):
    worker = start("tests.apps.life:app")
    (tmp_path / "lifespan.raise_at_the_end").touch()
    worker.signal()
    assert worker.wait() == 0
    assert worker.text().count("the lifespan raises at its end") == 1
    assert "Traceback" not in worker.text()
    assert "worker process died" not in worker.text()


def test_a_name_among_the_lanes_that_is_none_stops_nobody(start, send, driver, keys):
    assert send(faults.nothing).id
    driver.run(plain("HSET", keys.lanes, "nonsense", 1, "x:", 1, ":", 1))
    worker = start(slots=2)
    assert send(faults.nothing, 5).result(timeout=10) == 5
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    driver.run(plain("HDEL", keys.lanes, "nonsense", "x:", ":"))


def sockets(pid):
    """Return the sockets that a process has open."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(fd.readlink()))
        except FileNotFoundError:
            continue
    return {name for name in found if name.startswith("socket:")}


def test_no_process_keeps_the_supervisors_end_of_a_siblings_channel(start):
    # It would not see the end of file when the supervisor dies.
    worker = start(processes=3)
    wait_until(lambda: len(worker.children) == 3, "all three are there")
    own = sockets(worker.pid)
    shared = [sockets(child) & own for child in sorted(worker.children)]
    assert shared[0] == shared[1] == shared[2]
