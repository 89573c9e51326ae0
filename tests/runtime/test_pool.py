"""Pool processes before any delivery needs them, and after they died."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from streamwork.config import WorkerConfig
from streamwork.wire.message import Attempt
from streamwork.worker import pool
from streamwork.worker.executors import Executors
from tests.apps import life
from tests.helpers import await_until
from tests.runtime.kit import Bench, pool_pids
from tests.runtime.test_processes import ended
from tests.system.kit import Notes, is_gone

CORES = os.cpu_count()


@pytest.fixture
def bench():
    bench = Bench()
    bench.app = life.app
    bench.runner._tasks = life.app.tasks
    return bench


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "notes.txt")


@pytest.fixture
def gate(monkeypatch):
    """Hold back the start of every pool until this is set."""
    gate, start = threading.Event(), pool._start
    monkeypatch.setattr(pool, "_start", lambda made: gate.wait(20) and start(made))
    yield gate
    gate.set()


def run_with_executors(bench, main, **settings):
    async def all_of_it():
        executors = Executors(bench.app, WorkerConfig(**settings), bench.runner, bench.numbers, bench.free)
        try:
            await main(executors)
        finally:
            await executors.close()

    asyncio.run(all_of_it())


def test_prepared_processes_are_ready_and_the_first_body_runs_in_one_of_them(bench, notes):
    async def main(executors):
        await executors.prepare(["default"])
        pids = pool_pids()
        assert len(pids) == CORES
        run = bench.admitted(life.hold_in_process, str(notes.path), "h")
        executors.submit(run)
        (held,) = await await_until(notes.runs, "it runs", 20)
        assert held.pid in pids
        notes.go()
        assert (await ended(bench, run)).state == "succeeded"

    run_with_executors(bench, main)


def test_no_process_is_started_where_no_task_of_the_queues_needs_one(bench):
    async def main(executors):
        await executors.prepare(["mail"])
        assert executors._processes is None

    run_with_executors(bench, main)


@pytest.mark.parametrize("tags", [(), ("gpu", "eu")])
def test_tags_that_the_worker_does_not_offer_start_no_process(bench, module, tags):
    made = module(
        "tagged_app",
        "from streamwork import Streamwork\n"
        "app = Streamwork('tagged', 'redis://127.0.0.1:1/0')\n"
        "@app.task(executor='process', tags={'gpu'})\n"
        "def render() -> None: ...\n"
        "@app.task\n"
        "async def plain() -> None: ...\n",
    )
    bench.app = made.app

    async def main(executors):
        await executors.prepare(["default"])
        assert len(pool_pids()) == (CORES if tags else 0)

    run_with_executors(bench, main, tags=tags)


def test_no_more_processes_than_slots(bench):
    async def main(executors):
        await executors.prepare(["default"])
        assert len(pool_pids()) == 1

    run_with_executors(bench, main, slots=1)


def test_a_process_that_died_idle_is_there_again_before_the_next_delivery(bench):
    async def main(executors):
        await executors.prepare(["default"])
        before = pool_pids()
        os.kill(min(before), signal.SIGKILL)
        await await_until(lambda: all(map(is_gone, before)), "all of that pool are gone", 20)
        anew = await await_until(lambda: len(found := pool_pids()) == CORES and found, "there are as many again", 20)
        assert not anew & before
        await executors.prepare(["default"])

    run_with_executors(bench, main)


def test_a_process_killed_in_mid_body_is_there_again_while_another_body_goes_on(bench, notes):
    async def main(executors):
        await executors.prepare(["default"])
        runs = [bench.admitted(life.hold_in_process, str(notes.path), f"h{n}") for n in range(2)]
        for run in runs:
            executors.submit(run)
        await await_until(lambda: len(notes.runs()) == 2, "both run", 20)
        (first,), (other,) = notes.runs("h0"), notes.runs("h1")
        os.kill(first.pid, signal.SIGKILL)
        assert (await ended(bench, runs[0])).attempt == Attempt(crashes=1)
        anew = await await_until(lambda: len(found := pool_pids()) == 2 and found, "there are two again", 20)
        assert other.pid in anew
        assert first.pid not in anew
        notes.go()
        assert (await ended(bench, runs[1])).state == "succeeded"

    run_with_executors(bench, main, slots=2)


def test_while_processes_start_others_run_and_nothing_is_blamed(bench, gate):
    async def main(executors):
        waits = bench.admitted(life.facts_in_process, 1, attempt=Attempt(attempt=2))
        cancelled = bench.admitted(life.facts_in_process, 2)
        for run in (waits, cancelled):
            executors.submit(run)
        quick = bench.admitted(life.pid)
        executors.submit(quick)
        assert (await ended(bench, quick)).state == "succeeded"
        assert (waits.started_at_ms, bench.table.started()) == (0, [])
        executors.cancel_run(cancelled, terminate=False)
        assert (await ended(bench, cancelled)).state == "cancelled"
        gate.set()
        assert (await ended(bench, waits)).state == "succeeded"

    run_with_executors(bench, main)


def test_a_pool_that_ends_before_it_has_started_leaves_no_process(bench, gate):
    async def main(executors):
        executors.submit(bench.admitted(life.facts_in_process, 1))
        asyncio.get_running_loop().run_in_executor(None, gate.set)  # it closes at once

    run_with_executors(bench, main)
    assert pool_pids() == set()


def test_processes_that_end_while_they_import_are_started_less_and_less_often(bench, module, caplog):
    made = module(
        "deadly",
        "import multiprocessing, os\n"
        "if multiprocessing.parent_process() is not None:\n    os._exit(5)\n"
        "from streamwork import Streamwork\n"
        "app = Streamwork('deadly', 'redis://127.0.0.1:1/0')\n"
        "@app.task(retry=None, executor='process')\n"
        "def task() -> None: ...\n",
    )
    bench.app, bench.runner._tasks = made.app, made.app.tasks

    async def main(executors):
        await executors.prepare(["default"])  # it gives up
        pauses = lambda: [one.next_try_in_s for one in caplog.records if hasattr(one, "next_try_in_s")]
        await await_until(lambda: len(pauses()) >= 2, "they died twice", 30)
        assert pauses()[:2] == [0.5, 1.0]
        run = bench.admitted(made.task)
        executors.submit(run)
        assert (await ended(bench, run)).failure.type_name.endswith("BrokenProcessPool")
        assert executors._processes.running == 0

    run_with_executors(bench, main, slots=1)
