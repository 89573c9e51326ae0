"""W1, W1b, W1c: enqueue; W2, W2t, W2b: drain. A filling is always drained, so every run has its delivery check."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from benchlib.peer import Peer
from benchlib.processes import Workers
from benchlib.records import RecordFile
from benchlib.server import PrivateRedis
from benchlib.settings import Options

Figures = dict[str, Any]

# Late duplicates and the last settles land within this.
_SETTLE_S = 0.4
# One event loop at 80 k/s sends 20,000 in a quarter of a second, too short to time.
_CONCURRENT_FACTOR = 5


@dataclass(frozen=True)
class Arena:
    """Where runs happen: the options and the server they share."""

    options: Options
    server: PrivateRedis
    burn_loops: int


@dataclass(frozen=True)
class Step:
    """One filling and the drain that follows it; either may be what is measured.

    Attributes:
        how: "one" at a time, "bulk" or "concurrent".
    """

    fill_workload: str
    drain_workload: str
    how: str
    task: str = "noop"


STEPS = (
    Step("W1", "W2", "one"),
    Step("W1b", "W2b", "bulk"),
    Step("W1c", "", "concurrent"),
    Step("", "W2t", "bulk", task="noop_sync"),
)


def fill(
    arena: Arena, peer: Peer, how: str, tasks: int, task: str = "noop", seconds: float | None = None
) -> tuple[int, Figures]:
    """Empty the server, queue up to `tasks` tasks, and return how many were sent and what that cost."""
    with arena.server.flushed() as probe:
        time.sleep(0.2)
        before = probe.snapshot()
        action = "concurrent" if how == "concurrent" else "enqueue"
        # W1c is the async twin: the adapter that has both is told which.
        variant = peer.variant("await") if how == "concurrent" else None
        cap = arena.options.enqueue_cap_s if how != "bulk" else max(arena.options.enqueue_cap_s, 20.0)
        sent = peer.produce(
            arena.server.port,
            action,
            variant=variant,
            task=task,
            tasks=tasks * (_CONCURRENT_FACTOR if how == "concurrent" else 1),
            seconds=seconds,
            bulk=int(how == "bulk"),
            cap=cap,
        )
        count = int(sent["sent"])
        return count, {
            "sent": count,
            "rate": count / sent["seconds"],
            "producer_us": sent["cpu_s"] / count * 1e6,
            **probe.snapshot().since(before, count),
        }


def span_of(stamps_ns: list[int]) -> float:
    """Return the seconds from the first to the last stamp; a nanosecond when there are fewer than two."""
    return max((max(stamps_ns) - min(stamps_ns)) / 1e9, 1e-9) if stamps_ns else 1e-9


def drain(arena: Arena, peer: Peer, variant: str, sent: int, *, weigh: bool = False) -> Figures:
    """Run workers until `sent` tasks are done or the cap is reached, and return rates, costs and delivery.

    The rate runs from the first to the last record; `weigh` also samples memory, which costs processor time.
    """
    with RecordFile() as records, arena.server.connect() as probe:
        before = probe.snapshot()
        with Workers(peer, variant, arena.server.port, records.path) as workers:
            if weigh:
                workers.watch_memory()
            # Processor time counts from the first task on: starting Python is not the cost of a task.
            records.wait(1, arena.options.drain_cap_s, workers.alive)
            cpu_before = workers.cpu_s()
            status = records.wait(sent, arena.options.drain_cap_s, workers.alive)
            time.sleep(_SETTLE_S)
            cpu_s, after = workers.cpu_s() - cpu_before, probe.snapshot()
            started_at, peak_mib = workers.started_at, workers.peak_mib
        events = records.read()
        delivery = records.delivery(sent)
    figures: Figures = {"status": status, **delivery.as_dict()}
    if len(events) > 1:
        stamps = [event.at_ns for event in events]
        figures |= {
            "rate": (len(events) - 1) / span_of(stamps),
            "startup_s": min(stamps) / 1e9 - started_at,
            "worker_us": cpu_s / len(events) * 1e6,
            "peak_mib": peak_mib,
            "kept_per_task": after.keys / len(events),
            **after.since(before, len(events)),
        }
    return figures


def run_step(arena: Arena, step: Step, peer: Peer, position: int) -> list[tuple[str, str, Figures]]:
    """Run the step with the peer's variant at `position` and return (workload, variant, figures) of what was asked.

    Only the first variant is filled the measured way; the others are filled in bulk.
    """
    asked = arena.options.workloads
    fill_asked = step.fill_workload in asked and position == 0
    drain_asked = step.drain_workload in asked
    variant = variants_of(arena.options, step, peer)[position]
    sent, filling = fill(arena, peer, step.how if fill_asked else "bulk", arena.options.tasks, step.task)
    draining = drain(arena, peer, variant, sent)
    measured = []
    if fill_asked:
        delivery = {key: draining[key] for key in ("status", "expected", "done", "missing", "dup", "unknown", "exact")}
        measured.append((step.fill_workload, "", filling | delivery))
    if drain_asked:
        measured.append((step.drain_workload, variant, draining))
    return measured


def variants_of(options: Options, step: Step, peer: Peer) -> tuple[str, ...]:
    """Return the variants that this step runs for a peer: the drain's if it was asked for, else the filling's."""
    drains = peer.variants_for(step.drain_workload) if step.drain_workload in options.workloads else ()
    fills = peer.variants_for(step.fill_workload) if step.fill_workload in options.workloads else ()
    return drains or fills[:1]
