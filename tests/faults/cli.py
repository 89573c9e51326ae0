"""The command line of `ops/faults`."""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from rich.console import Console

from tests.faults.checker import Findings
from tests.faults.registry import Verdict, chosen, play
from tests.faults.report import Report

_DESCRIPTION = """\
Attack streamwork's promises: run a workload and a seeded fault on a real redis-server and real workers, write what
happened outside Redis, and check that history: nothing acknowledged is lost, nothing is committed twice.
"""
_EPILOG = """\
examples:
  ops/faults                                       every scenario, one seed
  ops/faults --seeds 20 --json out.json            every scenario, seeds 1 to 20
  ops/faults --only 'kill*' --seeds 20             how soon the work of a killed worker goes on
  ops/faults --only zombie-thawed --seed 7 --keep  that very run again; its history and logs stay
  ops/faults --minutes 30                          whatever comes in half an hour
  ops/faults --model --minutes 10 --jobs 2         no server: the broker's own code over a model of Redis (own --help)

A failed run leaves its folder (history, gates, logs of the workers) and prints where. The seed decides what a scenario
leaves to chance; how the processes interleave is the machine's, so repeat a rare failure with --seeds.

exit status: 0 no violation, and every fault took effect; 1 otherwise; 2 wrong usage. A recovery later than its reach is
told and costs nothing, since it also means a busy machine; --strict makes it 1.
"""
# A scenario that is not over by then hangs; each has patience of its own, which ends long before.
_STUCK_S = 240.0


def _parser():
    parser = argparse.ArgumentParser(
        prog="ops/faults", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--seed", type=int, metavar="N", help="the first seed (default 1; with --minutes: by chance)")
    add("--seeds", type=int, default=1, metavar="K", help="how many seeds per scenario, from N on (default 1)")
    add("--minutes", type=float, metavar="M", help="instead: scenarios and seeds by chance, for so long")
    add("--only", action="append", default=[], metavar="GLOB", help="scenarios by name; may be given again")
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="J",
        help="runs side by side (default 1, for times that mean something)",
    )
    add("--keep", action="store_true", help="keep history and logs of the runs that passed, too")
    add("--strict", action="store_true", help="exit status 1 also where recoveries miss their reach")
    add("--json", type=Path, metavar="FILE", help="write every run there")
    add("--report", type=Path, metavar="FILE.md", help="write the table there as Markdown")
    add("--list", action="store_true", help="list the scenarios, with the rules that they attack, and exit")
    return parser


def _plan(given, scenarios):
    """Yield (scenario, seed) for as long as there is something to do."""
    if given.minutes is None:
        first = 1 if given.seed is None else given.seed
        for seed in range(first, first + given.seeds):
            for one in scenarios:
                yield one.name, seed
        return
    end_at = time.monotonic() + given.minutes * 60
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    while True:
        for one in random.Random(seed).sample(scenarios, len(scenarios)):
            if time.monotonic() > end_at:
                return
            yield one.name, seed
        seed += 1


def _broken(name, seed, why):
    return Verdict(name, seed, "failed", [why], [], Findings())


def _verdicts(plan, jobs, is_kept):
    """Yield the verdict of each run, as it ends; each run has a process of its own."""
    running = {}
    # A run that is killed with its process must not take the others along: one pool per run.
    context = multiprocessing.get_context("spawn")
    is_over = False
    while running or not is_over:
        while not is_over and len(running) < jobs:
            name, seed = next(plan, (None, None))
            is_over = name is None
            if not is_over:
                pool = ProcessPoolExecutor(1, mp_context=context, initializer=_unwind_at_sigterm)
                future = pool.submit(play, name, seed, is_kept=is_kept)
                running[future] = pool, name, seed, time.monotonic()
        done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
        late = {one for one, (_, _, _, at_s) in running.items() if time.monotonic() - at_s > _STUCK_S} - done
        for future in done | late:
            pool, name, seed, _ = running.pop(future)
            yield _ended(future, pool, name, seed)


def _unwind_at_sigterm():
    """End by an exception, so that servers, workers and folders go too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _ended(future, pool, name, seed):
    if not future.done():
        for process in (pool._processes or {}).values():
            process.kill()  # its servers and workers die with it
        pool.shutdown(wait=False)
        return _broken(name, seed, f"not over after {_STUCK_S:g} s: killed")
    try:
        return future.result()
    except BrokenProcessPool:
        return _broken(name, seed, "the process of the run died")
    except Exception as error:
        return _broken(name, seed, f"the run itself failed: {error!r}")
    finally:
        pool.shutdown()


def _listing(scenarios):
    for one in scenarios:
        rules = ", ".join(map(str, one.rules))
        print(f"{one.name:<28} rules {rules:<22} {one.what}")


def main(arguments=None):
    """Play what was asked for and return the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if min(given.seeds, given.jobs) < 1 or (given.minutes is not None and given.minutes <= 0):
        parser.error("--seeds, --jobs and --minutes must be above zero")
    scenarios = chosen(given.only)
    if not scenarios:
        parser.error(f"no scenario is named like {', '.join(given.only)}; see --list")
    if given.list:
        _listing(scenarios)
        return 0
    _unwind_at_sigterm()
    console = Console(stderr=True)
    report = Report({one.name: one for one in scenarios})
    console.print(report.headline, highlight=False)
    total = None if given.minutes is not None else len(scenarios) * given.seeds
    try:
        with console.status("") as status:
            for verdict in _verdicts(_plan(given, scenarios), given.jobs, given.keep):
                report.add(verdict)
                status.update(f"{len(report.verdicts)}/{total or '?'} runs, {len(report.failed)} failed")
                _tell(console, verdict)
                report.write(given.json, given.report)
    except KeyboardInterrupt:
        console.print("stopped")
        report.show(_wide())
        return 128 + signal.SIGINT
    report.show(_wide())
    return 1 if report.failed or (given.strict and report.slow) else 0


def _wide():
    """Return where the table goes: whole, also in a pipe, which has no width."""
    return Console(width=max(Console().width, 140))


def _tell(console, verdict):
    colour = {"passed": "green", "failed": "red", "skipped": "yellow"}[verdict.status]
    line = f"[{colour}]{verdict.status}[/] {verdict.scenario} --seed {verdict.seed}  {verdict.seconds:.1f} s"
    console.print(line, highlight=False)
    if verdict.status == "passed":
        return
    for why in verdict.why:
        console.print(f"    {why}", markup=False, highlight=False)
    if verdict.folder:
        console.print(f"    history and logs: {verdict.folder}", markup=False, highlight=False)
