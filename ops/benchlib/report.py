"""Plain tables, 120 columns at most, from the runs of a report."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Run = dict[str, Any]

_OURS = "streamwork"


@dataclass(frozen=True)
class Column:
    """One figure of a table.

    Attributes:
        ratio: "" for the figure itself; else streamwork's figure divided by this row's.
    """

    title: str
    key: str
    digits: int = 0
    spread: bool = False
    ratio: bool = False


@dataclass(frozen=True)
class Table:
    """One workload."""

    workload: str
    title: str
    columns: tuple[Column, ...]


_RATE = (
    Column("tasks/s", "rate"),
    Column("(min - max)", "rate", spread=True),
    Column("ours/this", "rate", 2, ratio=True),
)
_REDIS = (Column("Redis us", "redis_us", 1), Column("bytes in", "bytes_in"), Column("out", "bytes_out"))
_ENQUEUE = (
    *_RATE,
    Column("CPU us", "producer_us", 1),
    *_REDIS,
    Column("cmds", "cmds_per_task", 2),
    Column("trips", "reads_per_task", 3),
)
_DRAIN = (
    *_RATE,
    Column("CPU us", "worker_us", 1),
    *_REDIS,
    Column("cmds", "cmds_per_task", 2),
    Column("trips", "reads_per_task", 3),
)
_IDEAL = (*_RATE, Column("% of ideal", "ideal_pct", 1), Column("ours/this", "ideal_pct", 2, ratio=True))
_SPREAD = (Column("p50", "p50", 2), Column("p95", "p95", 2), Column("p99", "p99", 2), Column("max", "max", 2))

TABLES = (
    Table("W1", "enqueue one at a time, sync, one producer process", _ENQUEUE),
    Table("W1b", "enqueue in bulk, one producer process", _ENQUEUE),
    Table("W1c", "1,000 concurrent aenqueue in one event loop", _ENQUEUE),
    Table("W2", "drain of async no-ops, one worker process (sync no-ops where a system has no async)", _DRAIN),
    Table("W2t", "drain of sync no-ops in threads, one worker process", _DRAIN),
    Table("W2b", "drain of no-ops, best with both cores", _DRAIN),
    Table(
        "W3",
        "latency in ms, one task at a time on an idle worker; ratios ours/this in the same order",
        (
            Column("n", "samples"),
            Column("enqueue", "enqueue_p50", 2),
            Column("start p50", "start_p50", 2),
            Column("p99", "start_p99", 2),
            Column("result p50", "result_p50", 2),
            Column("p99", "result_p99", 2),
            Column("start", "start_p50", 2, ratio=True),
            Column("p99", "start_p99", 2, ratio=True),
            Column("result", "result_p50", 2, ratio=True),
            Column("p99", "result_p99", 2, ratio=True),
        ),
    ),
    Table("W4", "bodies that sleep 50 ms, 100 slots, one process (ideal 2,000/s)", _IDEAL[:4]),
    Table("W5", "bodies that compute 10 ms, two processes; ideal = bare processes just before", _IDEAL[:4]),
    Table(
        "W6",
        "costs: PSS of every worker process; at rest: commands a second, CPU; per task: commands sent, all commands, …",
        (
            Column("idle MiB", "idle_mib", 1),
            Column("peak", "peak_mib", 1),
            Column("procs", "processes"),
            Column("MiB/10k", "mib_per_10k", 2),
            Column("cmd/s", "idle_cmds_s", 1),
            Column("CPU %", "idle_cpu_pct", 1),
            Column("sent", "client_cmds_per_task", 3),
            Column("cmds", "cmds_per_task", 2),
            Column("trips", "reads_per_task", 3),
            Column("bytes in", "bytes_in"),
            Column("out", "bytes_out"),
        ),
    ),
    Table(
        "W7",
        "SIGKILL of the whole worker with 10 of 20 tasks running; seconds after the kill",
        (
            Column("running", "interrupted"),
            Column("restarted", "restarted"),
            Column("first", "first_restart_s", 1),
            Column("all", "all_restarted_s", 1),
            Column("all 20 done", "all_done_s", 1),
            Column("done of 20", "done"),
            Column("twice", "dup"),
        ),
    ),
    Table(
        "W8",
        "Redis (AOF everysec) SIGTERM at 25 % of a drain, back after 1.5 s; seconds after its return",
        (
            Column("tasks", "expected"),
            Column("before", "done_when_down"),
            Column("first", "first_after_s", 2),
            Column("last", "last_after_s", 1),
            Column("not done", "missing"),
            Column("twice", "dup"),
            Column("alive", "alive"),
        ),
    ),
    Table(
        "D1",
        "lateness in ms from the instant asked for to the body's start, one idle worker",
        (
            Column("n", "samples"),
            Column("early", "early"),
            *_SPREAD,
            Column("clock", "clock_ms", 2),
        ),
    ),
    Table(
        "D2",
        "so many wait for another month; us of the server for a look, for a promoted one; at rest; ratio first/this",
        (
            Column("look", "tick_us", 1),
            Column("script", "tick_script_us", 1),
            Column("1st/this", "tick_us", 2, ratio=True),
            Column("promoted", "promoted_us", 1),
            Column("1st/this", "promoted_us", 2, ratio=True),
            Column("cmd/s", "rest_cmds_s", 1),
            Column("ms/s", "rest_ms_s", 2),
            Column("1st/this", "rest_ms_s", 2, ratio=True),
            Column("MiB", "waiting_mib"),
        ),
    ),
    Table(
        "D3",
        "ms until a running body hears cancel(terminate=True), none begins after pause, one begins after resume",
        (
            Column("n", "samples"),
            *_SPREAD,
            Column("ended p50", "ended_p50", 2),
            Column("p99", "ended_p99", 2),
        ),
    ),
    Table(
        "H1",
        "history of so many attempts: ms for 100 from anywhere, the newest, with where=, for one id; all of it",
        (
            Column("attempts", "attempts"),
            *(
                column
                for name in ("page", "newest", "where", "id")
                for column in (Column(f"{name} p50", f"{name}_p50", 2), Column("p99", f"{name}_p99", 2))
            ),
            Column("records/s", "all_rate"),
            Column("MiB more", "grown_mib", 1),
        ),
    ),
)

NOTES = """\
tasks/s, ms: median over rounds. ours/this: median of streamwork's first row divided by the row's.
Per task: CPU us, Redis us, bytes, cmds (those in scripts too), trips (socket reads of the server).
delivery: counted by id from the records. exact = each id once; cut = the drain was stopped at --cap."""


def _values(runs: Iterable[Run], key: str) -> list[float]:
    return [float(run[key]) for run in runs if run.get(key) is not None]


def _verdict(runs: list[Run]) -> str:
    """Say in one word what became of the tasks over all rounds."""
    lost, twice = sum(_values(runs, "missing")), sum(_values(runs, "dup"))
    cut = any(run.get("status", "done") != "done" for run in runs)
    if not any("exact" in run for run in runs):
        return ""
    if all(run.get("exact") for run in runs):
        return "exact"
    words = [f"{twice:.0f} twice"] if twice else []
    words += ["cut"] if cut else [f"{lost:.0f} missing"] if lost else []
    return ", ".join(words) or "unknown ids"


def _cell(column: Column, runs: list[Run], ours: list[Run]) -> str:
    values = _values(runs, column.key)
    if not values:
        return "-"
    middle = statistics.median(values)
    if column.spread:
        return f"({min(values):,.0f} - {max(values):,.0f})"
    if column.ratio:
        reference = _values(ours, column.key)
        return f"{statistics.median(reference) / middle:.{column.digits}f}" if reference and middle else "-"
    return f"{middle:,.{column.digits}f}"


def _layout(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    lines = []
    for row in [head, *rows]:
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _rows(table: Table, runs: list[Run]) -> list[list[str]]:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run["workload"] == table.workload and "error" not in run:
            groups.setdefault((run["peer"], run["variant"]), []).append(run)
    ours: list[Run] = next((group for (peer, _), group in groups.items() if peer == _OURS), [])
    rows = []
    for (peer, variant), group in groups.items():
        cells = [_cell(column, group, ours) for column in table.columns]
        rows.append([f"{peer} {variant}".strip(), *cells, _verdict(group)])
    return rows


def render(report: dict[str, Any]) -> str:
    """Return every table of the report as text."""
    runs: list[Run] = report["runs"]
    lines = [f"ops/bench, {report['started']}: {report['machine']}"]
    lines.append(f"{report['rounds']} rounds, {report['tasks']:,} tasks a run; peers interleaved in each round")
    loads = [run["load"] for run in runs] or [0.0]
    lines.append(f"load average while running: median {statistics.median(loads):.1f}, highest {max(loads):.1f}")
    for peer, versions in report["versions"].items():
        lines.append(f"  {peer}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    for table in TABLES:
        rows = _rows(table, runs)
        if rows:
            head = [table.workload, *(column.title for column in table.columns), "delivery"]
            lines += ["", f"{table.workload}: {table.title}", *_layout(head, rows)]
    lines += ["", NOTES]
    failures = [run for run in runs if "error" in run]
    if failures:
        lines += ["", "failed:"]
        lines += [f"  {run['workload']} {run['peer']} {run['variant']}: {run['error']}" for run in failures]
    return "\n".join(lines) + "\n"


def _cut_cleanly(run: Run) -> bool:
    """Say whether the drain was stopped at its cap while tasks were being done, each of them once."""
    return run.get("status") == "cap" and run["done"] > 0 and not run["dup"] and not run["unknown"]


def problems(report: dict[str, Any]) -> list[str]:
    """Return what is wrong with streamwork's own runs: failures, and deliveries that were not exact."""
    found = []
    for run in report["runs"]:
        if not run["peer"].startswith(_OURS):
            continue
        where = f"{run['workload']} {run['variant']} round {run['round'] + 1}"
        if "error" in run:
            found.append(f"{where}: {run['error']}")
        elif not run.get("exact", True) and not _cut_cleanly(run):
            counts = (f"{run.get(key, 0)} {key}" for key in ("missing", "dup", "unknown"))
            found.append(f"{where}: {', '.join(counts)}")
        elif run.get("early"):
            found.append(f"{where}: {run['early']} began early")
        elif run.get("kept_per_task", 1.0) < 1.0:
            found.append(f"{where}: results missing, {run['kept_per_task']:.3f} keys a task")
    return found
