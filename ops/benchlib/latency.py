"""W3: one task at a time on an idle worker."""

from __future__ import annotations

from benchlib.peer import Peer
from benchlib.processes import Workers
from benchlib.records import RecordFile
from benchlib.throughput import Arena, Figures


def percentile(values: list[float], share: float) -> float | None:
    """Return the value below which `share` of the values lie; None when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def run(arena: Arena, peer: Peer, variant_name: str) -> Figures:
    """Return percentiles in ms from before `enqueue` to: its return, the body's start, the result at the caller."""
    options = arena.options
    variant = peer.variant(variant_name)
    with arena.server.flushed(), RecordFile() as records:
        with Workers(peer, variant_name, arena.server.port, records.path):
            stamps = peer.produce(
                arena.server.port,
                "latency",
                variant=variant,
                tasks=options.latency_samples,
                cap=options.latency_cap_s,
            )
        events = records.read()
    before = stamps["before"]
    started = {event.task_id: event.at_ns for event in events}
    counted = [event.task_id for event in events if event.task_id >= 0]

    def since(instants: list[int]) -> list[float]:
        return [(instant - begun) / 1e6 for begun, instant in zip(before, instants, strict=True)]

    start = [(started[task_id] - begun) / 1e6 for task_id, begun in enumerate(before) if task_id in started]
    result = since(stamps["result"]) if stamps["has_result"] else []
    return {
        "samples": len(before),
        "enqueue_p50": percentile(since(stamps["sent"]), 0.5),
        "start_p50": percentile(start, 0.5),
        "start_p99": percentile(start, 0.99),
        "result_p50": percentile(result, 0.5),
        "result_p99": percentile(result, 0.99),
        "missing": len(before) - len(start),
        "dup": len(counted) - len(set(counted)),
        "exact": sorted(counted) == list(range(len(before))),
    }
