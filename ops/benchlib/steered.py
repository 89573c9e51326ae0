"""D1: how late what is due begins; D2: what a long queue of later ones costs; D3: how soon it is heard; H1: history."""

from __future__ import annotations

import time

from benchlib.latency import percentile
from benchlib.peer import Peer
from benchlib.processes import Workers
from benchlib.recorder import FINISHED, STOPPED
from benchlib.records import RecordFile
from benchlib.throughput import Arena, Figures

_DELAYED, _DELAYED_S = 2_000, 20.0
_OCCURRENCES = 2000
_WAITING = {"1,000": 1_000, "100,000": 100_000, "1,000,000": 1_000_000}
_LOOKS = 4_000
_SIGNALS = 200
_READY_S = 2.0
_BOOT_S, _REST_S = 3.0, 10.0
_LATE_S = 3.0


def _percentiles(values: list[float]) -> Figures:
    """Return a distribution in ms under the names that D1 and D3 print."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {name: percentile(values, share) for name, share in shares.items()} | {"max": max(values, default=None)}


def _wall_offset_ns() -> int:
    """Return what the wall clock is ahead of the monotonic one that bodies stamp; as exact as the quickest of tries."""
    best = (1 << 62, 0)
    for _ in range(50):
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        best = min(best, (after - before, wall - (before + after) // 2))
    return best[1]


def run_delays(arena: Arena, peer: Peer, variant: str) -> Figures:
    """Run D1 on an idle worker: lateness from the instant asked for to the body's start."""
    tasks = _OCCURRENCES if variant == "cron" else min(_DELAYED, arena.options.tasks)
    with arena.server.flushed(), RecordFile() as records:
        with Workers(peer, variant, arena.server.port, records.path) as workers:
            time.sleep(_READY_S)
            before = _wall_offset_ns()
            asked = peer.steer(arena.server.port, variant, records.path, tasks=tasks, seconds=_DELAYED_S)
            due_ms: list[int] = asked["due_ms"]
            ids: list[int] = asked.get("ids") or list(range(len(due_ms)))
            status = records.wait(len(ids), _LATE_S, workers.alive, quiet_s=_LATE_S)
            offset_ns = _wall_offset_ns()
        started = [event for event in records.read() if event.kind == FINISHED]
    began_ms: dict[int, float] = {}
    for event in started:
        began_ms.setdefault(event.task_id, (event.at_ns + offset_ns) / 1e6)
    late = [began_ms[task_id] - at_ms for task_id, at_ms in zip(ids, due_ms, strict=True) if task_id in began_ms]
    return {
        "status": status,
        "expected": len(ids),
        "done": len(late),
        "missing": len(ids) - len(late),
        "dup": len(started) - len(began_ms),
        "unknown": len(began_ms.keys() - set(ids)),
        "exact": sorted(event.task_id for event in started) == sorted(ids),
        "samples": len(late),
        "early": sum(span < 0 for span in late),
        # What the clocks moved against each other meanwhile: lateness is known no better.
        "clock_ms": abs(offset_ns - before) / 1e6,
        **_percentiles(late),
    }


def run_waiting(arena: Arena, peer: Peer, variant: str) -> Figures:
    """Run D2: the server's processor time for a look at `due`, for a promoted message, and beside an idle worker."""
    with arena.server.flushed() as probe, RecordFile() as records:
        before = probe.snapshot()
        figures: Figures = peer.steer(
            arena.server.port, "due", records.path, tasks=_LOOKS, waiting=_WAITING[variant], timeout_s=300.0
        )
        figures["waiting_mib"] = (probe.snapshot().memory - before.memory) / 2**20
        with Workers(peer, variant, arena.server.port, records.path) as workers:
            # The promoted ones are run first: they have been promised to nobody, and the worker is to be idle.
            records.wait(figures["promoted"], arena.options.drain_cap_s, workers.alive)
            time.sleep(_BOOT_S)
            before = probe.snapshot()
            time.sleep(_REST_S)
            rest = probe.snapshot().since(before, 1)
        done = records.delivery(_LOOKS)
    return {
        **figures,
        **done.as_dict(),
        "rest_cmds_s": rest["cmds_per_task"] / _REST_S,
        "rest_ms_s": rest["redis_us"] / 1000 / _REST_S,
    }


def run_history(arena: Arena, peer: Peer, variant: str) -> Figures:
    """Run H1: how long a page of history takes, out of so many attempts that really ran."""
    with arena.server.flushed(), RecordFile() as records, Workers(peer, variant, arena.server.port, records.path):
        figures: Figures = peer.steer(
            arena.server.port, "history", records.path, waiting=_WAITING[variant], timeout_s=600.0
        )
    return figures


def run_signals(arena: Arena, peer: Peer, variant: str) -> Figures:
    """Run D3: from before `cancel`, `pause` or `resume` to its effect in the worker."""
    count = min(_SIGNALS, arena.options.tasks)
    with arena.server.flushed(), RecordFile() as records:
        with Workers(peer, variant, arena.server.port, records.path):
            time.sleep(_READY_S)
            asked = peer.steer(arena.server.port, variant, records.path, tasks=count)
        events = records.read()
    if variant == "cancel":
        stopped = {event.task_id: event.at_ns for event in events if event.kind == STOPPED}
        reach = [(stopped[i] - at_ns) / 1e6 for i, at_ns in enumerate(asked["asked"]) if i in stopped]
        ended = [(end - at_ns) / 1e6 for at_ns, end in zip(asked["asked"], asked["ended"], strict=True)]
        known = {"ended_p50": percentile(ended, 0.5), "ended_p99": percentile(ended, 0.99)}
    else:
        reach = _reached([event.at_ns for event in events], asked["paused"], asked["resumed"], variant)
        known = {}
    return {"samples": len(reach), "missing": count - len(reach), **_percentiles(reach), **known}


def _reached(starts: list[int], paused: list[int], resumed: list[int], variant: str) -> list[float]:
    """Return in ms how long bodies still began after each pause, or until one began after each resumption."""
    starts.sort()
    found: list[float] = []
    for number, (from_ns, to_ns) in enumerate(zip(paused, resumed, strict=True)):
        if variant == "pause":
            within = [at_ns for at_ns in starts if from_ns < at_ns < to_ns]
            found.append((max(within, default=from_ns) - from_ns) / 1e6)
            continue
        next_ns = paused[number + 1] if number + 1 < len(paused) else 1 << 62
        within = [at_ns for at_ns in starts if to_ns < at_ns < next_ns]
        found += [(within[0] - to_ns) / 1e6] if within else []
    return found
