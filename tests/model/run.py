"""Run schedules of the model until a time is up or a number is reached: what ``ops/faults --model`` calls."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

BATCH = 500


def batch(first, count=BATCH):
    """Run the schedules of some seeds; (how many, actions in all, what went wrong as texts)."""
    from tests.model import schedule
    from tests.model.patching import patched

    wrong, actions = [], 0
    with patched():
        for seed in range(first, first + count):
            outcome = schedule.run_seed(seed)
            actions += len(outcome.actions)
            if outcome.wrong is not None:
                wrong.append(schedule.told(schedule.shrunk(outcome)))
    return count, actions, wrong


def _arguments(argv):
    parser = argparse.ArgumentParser(prog="ops/faults --model", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--schedules", type=int, help="how many (default: 100000, or what fits in --minutes)")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    return parser.parse_args(argv)


def _run(options, progress, console):
    most = options.schedules or (sys.maxsize if options.minutes else 100_000)
    until = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
    bar = progress.add_task("schedules", total=most if options.schedules or not options.minutes else None, told="")
    done = actions = violations = given = 0
    began = time.monotonic()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        waiting = []
        while given < most or waiting:
            while given < most and len(waiting) < 2 * options.jobs and time.monotonic() < until:
                count = min(BATCH, most - given)
                waiting.append(pool.submit(batch, options.seed + given, count))
                given += count
            if not waiting:
                break
            count, some, wrong = waiting.pop(0).result()
            done, actions, violations = done + count, actions + some, violations + len(wrong)
            for text in wrong:
                console.print(text, markup=False, highlight=False)
            rate = done / (time.monotonic() - began)
            progress.update(bar, completed=done, told=f"{rate:,.0f}/s, {violations} violations")
    return done, actions, violations, time.monotonic() - began


def main(argv=None):
    """Run; the exit status is 1 when an invariant was violated."""
    options = _arguments(argv)
    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}"),
        TextColumn("{task.fields[told]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        done, actions, violations, took_s = _run(options, progress, console)
    console.print(
        f"{done:,} schedules from seed {options.seed}, {actions:,} actions and what ends them, {took_s:.0f} s "
        f"({done / max(took_s, 0.001):,.0f}/s): {violations} violations"
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
