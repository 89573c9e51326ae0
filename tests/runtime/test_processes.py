"""Plain bodies in processes of their own, which can be killed and may die."""

from __future__ import annotations

import asyncio
import sys

import pytest

from streamwork import ConfigError
from streamwork.config import WorkerConfig
from streamwork.wire.codec import unpacker
from streamwork.wire.message import Attempt, Options
from streamwork.worker.executors import Executors
from streamwork.worker.processes import ProcessExecutor
from tests.apps import life
from tests.helpers import await_until
from tests.runtime.kit import Bench
from tests.system.kit import Notes, is_gone

unpack = unpacker(object)


@pytest.fixture
def bench():
    bench = Bench()
    bench.app = life.app
    bench.runner._tasks = life.app.tasks
    return bench


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "notes.txt")


def run_with_processes(bench, main):
    async def all_of_it():
        processes = ProcessExecutor(life.app, bench.runner, bench.numbers, bench.free)
        try:
            await main(processes)
        finally:
            processes.close()

    asyncio.run(all_of_it())


async def ended(bench, run):
    return await await_until(lambda: bench.end_of(run), "it ended", 20)


def test_a_whole_life_of_the_pool(bench, notes):
    async def main(processes):
        # One process less to start per fact: 0.3 s each.
        fits = bench.admitted(life.facts_in_process, 7, attempt=Attempt(attempt=2, crashes=1), note="n")
        processes.submit(fits)
        facts = unpack((await ended(bench, fits)).value)
        assert (facts["number"], facts["note"], facts["attempt"], facts["crashes"]) == (7, "n", 2, 1)
        assert (facts["task_id"], facts["queue"], facts["lane"]) == (fits.message.id, "default", "1:")
        assert (facts["fence"], facts["task_name"], facts["resources"]) == (
            fits.token,
            "tests.apps.life.facts_in_process",
            None,
        )

        hangs = bench.admitted(life.hang_in_process, str(notes.path), "hangs")
        processes.submit(hangs)
        (hanging,) = await await_until(lambda: notes.runs("hangs"), "it hangs", 20)
        end = await ended(bench, hangs)
        assert (end.failure.type_name, end.letter.reason) == ("TimeoutError", "failed")
        await await_until(lambda: is_gone(hanging.pid), "its process is killed")

        dies = bench.admitted(life.die_in_process, str(notes.path), "dies", attempt=Attempt(attempt=2, crashes=1))
        processes.submit(dies)
        end = await ended(bench, dies)
        assert (end.op[0], end.attempt) == ("R", Attempt(attempt=2, crashes=2))

        poison = bench.admitted(life.die_in_process, str(notes.path), "dies", attempt=Attempt(crashes=2))
        processes.submit(poison)
        end = await ended(bench, poison)
        assert end.letter.reason == "quarantined"
        assert "status 7" in end.failure.message

        own = bench.admitted(life.odd_in_process, "locked", options=Options(retry=(2, 0.0, 1.0, 0.0, False)))
        processes.submit(own)
        assert (await ended(bench, own)).attempt == Attempt(attempt=2)

        wrong = bench.admitted("tests.apps.life.facts_in_process", "not a number")
        processes.submit(wrong)
        assert (await ended(bench, wrong)).failure.type_name == "streamwork.errors.ArgumentError"

        assert (processes.running, sorted(bench.numbers), bench.table.started()) == (0, [0, 1, 2, 3], [])
        assert len(bench.freed) == 6

    run_with_processes(bench, main)


def test_cancel_kills_what_runs_and_leaves_no_outcome(bench, notes):
    async def main(processes):
        runs = [bench.admitted(life.hold_in_process, str(notes.path), f"h{n}") for n in range(4)]
        for run in runs:
            processes.submit(run)
        await await_until(notes.runs, "at least one runs", 20)
        processes.cancel_all()
        await await_until(lambda: processes.running == 0, "all are cancelled", 20)
        assert bench.settled == []
        assert {(run.stop_reason, run.is_over) for run in runs} == {("released", False)}
        pids = {run.pid for run in notes.runs()}
        await await_until(lambda: all(map(is_gone, pids)), "their processes are killed")

    run_with_processes(bench, main)


def test_without_the_extra_it_is_said_before_anything_is_read(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "pebble", None)
    with pytest.raises(ConfigError, match=r"pip install 'streamwork\[process\]'"):
        Executors(life.app, WorkerConfig(), bench.runner, bench.free)
