"""W6: what a system costs at rest and per task."""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchlib.peer import Peer
from benchlib.probe import ClientCommandCounter
from benchlib.processes import Workers
from benchlib.records import RecordFile
from benchlib.throughput import Arena, Figures, drain, fill

_MOST_TASKS = 10_000
_COUNTED_TASKS = 5_000
_BOOT_S = 3.0
_IDLE_S = 5.0


def run(arena: Arena, peer: Peer, variant: str) -> Figures:
    """Weigh one variant: at rest, then with a queue to drain, then once more under MONITOR to count commands."""
    figures = _at_rest(arena, peer, variant)
    sent, filling = fill(arena, peer, "bulk", min(_MOST_TASKS, arena.options.tasks))
    figures["mib_per_10k"] = filling["mib_per_10k"]
    figures["producer_cmds"] = filling["cmds_per_task"]
    draining = drain(arena, peer, variant, sent, weigh=True)
    wanted = ("peak_mib", "cmds_per_task", "reads_per_task", "bytes_in", "bytes_out", "worker_us", "redis_us")
    delivery = ("status", "expected", "done", "missing", "dup", "unknown", "exact", "kept_per_task", "commands")
    figures |= {key: draining[key] for key in wanted + delivery if key in draining}
    figures["client_cmds_per_task"] = _client_commands(arena, peer, variant)
    return figures


def _at_rest(arena: Arena, peer: Peer, variant: str) -> Figures:
    with ExitStack() as stack:
        probe, records = stack.enter_context(arena.server.flushed()), stack.enter_context(RecordFile())
        workers = stack.enter_context(Workers(peer, variant, arena.server.port, records.path))
        time.sleep(_BOOT_S)
        before, cpu_before = probe.snapshot(), workers.cpu_s()
        time.sleep(_IDLE_S)
        after, cpu_s = probe.snapshot(), workers.cpu_s() - cpu_before
        idle_mib, processes = workers.memory()
    return {
        "idle_mib": idle_mib,
        "processes": processes,
        "idle_cmds_s": after.since(before, 1)["cmds_per_task"] / _IDLE_S,
        "idle_cpu_pct": cpu_s / _IDLE_S * 100,
    }


def _client_commands(arena: Arena, peer: Peer, variant: str) -> float:
    """Return the commands per task that the worker itself sent, not counting those inside scripts."""
    sent, _ = fill(arena, peer, "bulk", min(_COUNTED_TASKS, arena.options.tasks))
    counter = ClientCommandCounter(arena.server.port)
    with RecordFile() as records, Workers(peer, variant, arena.server.port, records.path) as workers:
        records.wait(sent, arena.options.drain_cap_s, workers.alive)
        done = records.count()
        commands = counter.finish()
    return commands / max(done, 1)
