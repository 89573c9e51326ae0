"""Plain bodies in processes of their own, which can be killed and may die."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest
from pebble import ProcessPool

from streamwork import ConfigError, Streamwork
from streamwork.config import WorkerConfig
from streamwork.wire.codec import unpacker
from streamwork.wire.message import Attempt, Options
from streamwork.worker.executors import Executors
from streamwork.worker.processes import ProcessExecutor
from tests.apps import life
from tests.helpers import await_until
from tests.runtime.kit import Bench, pool_pids
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


def run_with_processes(bench, main, app=life.app, most=2):
    async def all_of_it():
        processes = ProcessExecutor(app, bench.runner, bench.numbers, bench.free, most)
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
        assert [(run.stop_reason, run.is_over) for run in runs] == [("released", False)] * 2 + [("", False)] * 2
        pids = {run.pid for run in notes.runs()}
        await await_until(lambda: all(map(is_gone, pids)), "their processes are killed")

    run_with_processes(bench, main)


def test_what_waits_for_a_process_has_not_begun(bench, notes):
    async def main(processes):
        runs = [bench.admitted(life.hold_in_process, str(notes.path), f"h{n}") for n in range(4)]
        for run in runs:
            processes.submit(run)
        await await_until(lambda: len(notes.runs()) == 2, "two run", 20)
        assert [one.entry for one in bench.table.started()] == [run.entry for run in runs[:2]]
        assert [bool(run.started_at_ms) for run in runs] == [True, True, False, False]
        runs[2].is_over = True  # as if it had been given back meanwhile
        notes.go("h0")
        await ended(bench, runs[0])
        await await_until(lambda: notes.runs("h3"), "the next one runs", 20)
        notes.go()
        for run in (runs[1], runs[3]):
            assert (await ended(bench, run)).state == "succeeded"
        assert not notes.runs("h2")

    run_with_processes(bench, main)


def test_a_sigterm_for_the_whole_group_ends_no_body(bench, notes):
    async def main(processes):
        run = bench.admitted(life.hold_in_process, str(notes.path), "h")
        processes.submit(run)
        pids = await await_until(lambda: len(found := pool_pids()) == 2 and found, "they are started")
        for pid in pids:
            os.kill(pid, signal.SIGTERM)  # while they are still starting
        (held,) = await await_until(notes.runs, "it runs", 20)
        assert held.pid in pids
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        notes.go()
        assert (await ended(bench, run)).state == "succeeded"

    run_with_processes(bench, main)


def test_a_process_that_dies_idle_does_not_end_the_pool(bench, notes):
    async def main(processes):
        first = bench.admitted(life.facts_in_process, 1, attempt=Attempt(attempt=2))
        processes.submit(first)
        await ended(bench, first)
        for pid in pool_pids():
            os.kill(pid, signal.SIGKILL)
        await await_until(lambda: not processes._pool.is_there, "the pool gives up", 20)
        again = bench.admitted(life.facts_in_process, 2, attempt=Attempt(attempt=2))
        processes.submit(again)
        assert (await ended(bench, again)).state == "succeeded"

    run_with_processes(bench, main)


def test_nobody_is_blamed_for_processes_that_died_idle(bench, notes):
    async def main(processes):
        for number in range(4):  # one more than crashes that make a quarantine
            run = bench.admitted(life.facts_in_process, number, attempt=Attempt(attempt=2))
            processes.submit(run)
            assert (await ended(bench, run)).state == "succeeded"
            for pid in pool_pids():
                os.kill(pid, signal.SIGKILL)

    run_with_processes(bench, main)


def test_what_a_pool_that_gave_up_forgot_is_sent_to_the_next(bench, monkeypatch):
    async def main(processes):
        await await_until(lambda: processes._pool.is_there, "there is a pool")
        monkeypatch.setattr(processes._pool._pool, "schedule", lambda *_args, **_named: Future())
        runs = [bench.admitted(life.facts_in_process, n, attempt=Attempt(attempt=2)) for n in range(3)]
        for run in runs:
            processes.submit(run)
        processes._pool._pool.stop()
        assert [(await ended(bench, run)).state for run in runs] == ["succeeded"] * 3
        assert (processes.running, len(bench.freed)) == (0, 3)

    run_with_processes(bench, main)


def test_without_a_process_a_delivery_is_tried_again_later(bench, monkeypatch, caplog):
    def refuse(*_args, **_named):
        raise BrokenProcessPool from OSError("no room")

    monkeypatch.setattr(ProcessPool, "_start_pool", refuse)

    async def main(processes):
        runs = [bench.admitted(life.facts_in_process, n) for n in range(3)]
        for run in runs:
            processes.submit(run)
        await await_until(lambda: len(bench.freed) == 3, "all are judged")
        assert [bench.end_of(run).attempt for run in runs] == [Attempt(attempt=2)] * 3
        assert "no process could be started: no room" in [getattr(one, "why", "") for one in caplog.records]
        assert (bench.freed, processes.running, sorted(bench.numbers)) == (runs, 0, [0, 1, 2, 3])

    run_with_processes(bench, main)


def test_a_pool_that_ends_while_its_processes_start_is_quiet(tmp_path):
    program = """
import asyncio
from streamwork.worker.processes import ProcessExecutor
from tests.apps import life
from tests.runtime.kit import Bench

async def main():
    for tenths in range(6):
        bench = Bench()
        bench.runner._tasks = life.app.tasks
        processes = ProcessExecutor(life.app, bench.runner, bench.numbers, bench.free, 6)
        processes.submit(bench.admitted(life.facts_in_process, 1))
        await asyncio.sleep(tenths / 10)
        processes.close()

if __name__ == "__main__":
    asyncio.run(main())
"""
    file = tmp_path / "stops.py"
    file.write_text(program)
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    done = subprocess.run(
        [sys.executable, file], env=paths, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_task_is_found_by_its_name_whatever_its_function_is_called(bench, module):
    made = module(
        "odd_names",
        "from streamwork import Streamwork\n"
        "app = Streamwork('odd', 'redis://127.0.0.1:1/0')\n"
        "def raw(number: int) -> int:\n    return number + 1\n"
        "plus_one = app.task(name='plus', executor='process')(raw)\n"
        "def declare():\n"
        "    @app.task(name='nested', executor='process')\n"
        "    def inner(number: int) -> int:\n        return number + 2\n"
        "declare()\n",
    )

    async def main(processes):
        for name, wanted in (("plus", 11), ("nested", 12)):
            run = bench.admitted(name, 10)
            processes.submit(run)
            assert unpack((await ended(bench, run)).value) == wanted

    bench.runner._tasks = made.app.tasks
    run_with_processes(bench, main, made.app)


def test_a_task_that_no_process_could_find_is_refused(bench):
    app = Streamwork("hidden", "redis://127.0.0.1:1/0")

    @app.task(executor="process")
    def nested() -> None: ...

    with pytest.raises(ConfigError, match=r"task tests.*nested: executor='process' .* at the top level of a module"):
        Executors(app, WorkerConfig(), bench.runner, bench.numbers, bench.free)


def test_an_app_that_a_process_cannot_import_fails_its_deliveries_and_prints_nothing(bench, module, capfd, monkeypatch):
    # A handler that an earlier test left behind complains of its closed stream, and that is none of this test's.
    for each in (logging.getLogger(), logging.getLogger("streamwork")):
        stale = [one for one in each.handlers if getattr(getattr(one, "stream", None), "closed", False)]
        monkeypatch.setattr(each, "handlers", [one for one in each.handlers if one not in stale])
    made = module(
        "only_here",
        "import multiprocessing\n"
        "if multiprocessing.parent_process() is not None:\n    raise OSError('no licence here')\n"
        "from streamwork import Streamwork\n"
        "app = Streamwork('here', 'redis://127.0.0.1:1/0')\n"
        "@app.task(retry=None, executor='process')\n"
        "def task() -> None: ...\n",
    )

    async def main(processes):
        run = bench.admitted(made.task)
        processes.submit(run)
        end = await ended(bench, run)
        assert end.letter.reason == "failed"
        assert end.failure.type_name == "streamwork.errors.AppBroken"
        assert "cannot import task from only_here: OSError: no licence here" in end.failure.message
        assert "processes.py" not in end.failure.traceback

    bench.runner._tasks = made.app.tasks
    run_with_processes(bench, main, made.app)
    assert capfd.readouterr().err == ""


def test_without_the_extra_it_is_said_before_anything_is_read(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "pebble", None)
    with pytest.raises(ConfigError, match=r"pip install '<path to the clone>\[process\]'"):
        Executors(life.app, WorkerConfig(), bench.runner, bench.numbers, bench.free)


def test_whatever_goes_wrong_in_settling_the_slot_is_free(bench, monkeypatch, caplog):
    def refuse(*_):
        raise RuntimeError("not this one")

    async def main(processes):
        monkeypatch.setattr(bench.runner.endings, "dead", refuse)
        processes.submit(bench.admitted(life.facts_in_process.name, "not a number"))
        await await_until(lambda: bench.freed, "it left its slot", 20)
        assert (processes.running, sorted(bench.numbers), bench.settled) == (0, [0, 1, 2, 3], [])
        assert "a delivery could not be settled" in caplog.text

    run_with_processes(bench, main)
