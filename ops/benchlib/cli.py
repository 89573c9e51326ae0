"""The command line of `ops/bench`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from benchlib.catalog import CATALOG, DEFAULT_PEERS
from benchlib.report import TABLES, problems, render
from benchlib.runner import Bench
from benchlib.settings import BenchError, Options, home, logs, say

_DEFAULT_WORKLOADS = ("W1", "W1b", "W2", "W3", "W4")
_DESCRIPTION = "Run streamwork and other task systems side by side on a private redis-server and print ratios."
_EPILOG = """\
How it measures: every task body appends its id and a monotonic stamp to a file in memory, the same for all systems,
so rates, latencies, losses and duplicates need no word of the system under test. Peers take turns inside each workload
and round; tables give medians. Read the ratios within one table: absolute figures move with the machine's load.

First use makes a virtual environment per peer under ~/.cache/streamwork-bench ($STREAMWORK_BENCH_HOME to move it),
which takes minutes; --upgrade moves them to the newest releases. streamwork is installed from this checkout. What
servers, workers and producers print is in the folder `logs` there.

examples:
  ops/bench                                                      streamwork and the fastest peers, W1-W4
  ops/bench --peers streamwork --workloads W1,W2 --floor         our share of the raw loops and the bare machinery
  ops/bench --peers streamwork,bullmq,repid --workloads W2,W3 --rounds 3 --json out.json
  ops/bench --peers streamwork,streaq,bullmq,celery:durable --workloads W7,W8       what faults do
  ops/bench --peers streamwork --workloads D1,D2,D3 --rounds 1                      delays, and how soon a worker hears
  ops/bench --peers streamwork --workloads H1 --rounds 1                            pages of a long history
  ops/bench --peers streamwork --workloads W2 --rounds 1 --n 2000                   a quick look

exit status: 0 streamwork delivered exactly in every run (or was not run); 1 it did not, or a run of it failed;
2 wrong usage, or something is missing. A peer that fails is listed and the rest goes on.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ops/bench",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--peers", default=",".join(DEFAULT_PEERS), metavar="A,B", help="systems, as name or name:mode (see --list)")
    add("--workloads", default=",".join(_DEFAULT_WORKLOADS), metavar="W1,W2", help="what to measure (see --list)")
    add("--rounds", type=int, default=3, metavar="N", help="rounds; W7 and W8 run once (default 3)")
    add("--n", type=int, default=20_000, metavar="N", help="tasks in a throughput run (default 20000)")
    add("--cap", type=float, default=9.0, metavar="S", help="stop a drain after S seconds, rate over what is done")
    add("--enqueue-cap", type=float, default=6.0, metavar="S", help="stop one-at-a-time enqueueing after S seconds")
    add("--samples", type=int, default=500, metavar="N", help="tasks in W3, within 8 s (default 500)")
    add("--window", type=float, default=120.0, metavar="S", help="how long W7 and W8 wait for recovery (default 120)")
    add("--floor", action="store_true", help="add raw redis-py, redis-benchmark and the bare machinery")
    add("--json", type=Path, metavar="FILE", help="write every run there, also while running")
    add("--port", type=int, default=7301, metavar="P", help="port of the private server; W7, W8 use those above it")
    add("--upgrade", action="store_true", help="move the peers' environments to the newest releases first")
    add("--list", action="store_true", help="list peers, modes and workloads, and exit")
    return parser


def _listing() -> str:
    lines = ["peers (modes besides default; how its workers start for each workload):"]
    for name, spec in CATALOG.items():
        shown = sorted(workload for workload in spec.plan if not workload.startswith("W1"))
        plan = " ".join(f"{workload}={'/'.join(spec.plan[workload])}" for workload in shown)
        lines.append(f"  {name:<14} {','.join(spec.modes) or '-':<14} {plan}")
    lines += ["", "workloads:", *(f"  {table.workload:<4} {table.title}" for table in TABLES)]
    return "\n".join(lines)


def _chosen(
    parser: argparse.ArgumentParser, text: str, known: dict[str, tuple[str, ...]], what: str
) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    if not chosen:
        parser.error(f"no {what} given")
    for part in chosen:
        name, _, mode = part.partition(":")
        if name not in known:
            parser.error(f"unknown {what} {name!r}; there are {', '.join(known)}")
        if mode and mode not in ("default", *known[name]):
            parser.error(f"{name} has no mode {mode!r}; it has {', '.join(('default', *known[name]))}")
    return chosen


def _options(arguments: list[str] | None) -> Options | None:
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        return None
    if min(given.rounds, given.n, given.samples) < 1 or min(given.cap, given.enqueue_cap, given.window) <= 0:
        parser.error("--rounds, --n, --samples, --cap, --enqueue-cap and --window must be above zero")
    return Options(
        peers=_chosen(parser, given.peers, {name: spec.modes for name, spec in CATALOG.items()}, "peer"),
        workloads=_chosen(parser, given.workloads, {table.workload: () for table in TABLES}, "workload"),
        rounds=given.rounds,
        tasks=given.n,
        port=given.port,
        floor=given.floor,
        upgrade=given.upgrade,
        json_path=given.json,
        enqueue_cap_s=given.enqueue_cap,
        drain_cap_s=given.cap,
        latency_samples=given.samples,
        fault_window_s=given.window,
    )


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other `ops/bench` of this user runs: two at once would measure each other."""
    with (home() / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another ops/bench is running: waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    options = _options(arguments)
    if options is None:
        print(_listing())
        return 0
    # Servers and workers are stopped by context managers: a SIGTERM must unwind them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with _alone():
            report = Bench(options).run()
    except BenchError as error:
        print(f"ops/bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"ops/bench: stopped; logs are in {logs()}", file=sys.stderr)
        return 128 + signal.SIGINT
    print(render(report), end="")
    wrong = problems(report)
    for line in wrong:
        print(f"ops/bench: streamwork {line}", file=sys.stderr)
    return 1 if wrong else os.EX_OK
