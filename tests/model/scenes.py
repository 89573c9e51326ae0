"""Schedules written by hand: what chance finds once in ten thousand. Each shows one guard of `mutations.MUTATIONS`."""

from __future__ import annotations

from tests.model.client import IDS
from tests.model.schedule import Shape


def _shape(*processes):
    """One message on one lane, and so many processes for each supervisor, all of which read it."""
    tags = {f"h{number}": [frozenset({"a"})] * count for number, count in enumerate(processes, 1)}
    lane_of = dict.fromkeys(IDS[:1], "1:")
    return Shape(7, len(processes), 1, 1, tags, ["1:"], lane_of, frozenset(), True, True, (), False)


def _reads(name):
    """Let a process go on until it waits for work; what is impossible is left out of a schedule."""
    return [("hear", f"{name}.reading"), ("go", f"{name}.driver"), ("go", f"{name}.reading")] * 6


_SENT = [("send", 0, 1), ("go", "p1.driver")]

SCENES = {
    # A flush, a fenced worker that asks for the lanes and finds none, and another reader's heal.
    "healed_lane_told": (
        _shape(2),
        [*_reads("h1c2"), ("flushall",), ("hear", "h1c2.reading"), ("live", 1_000), ("go", "h1c2.driver"),
         ("send", 0, 1)],
    ),
    # Between the reaper's look and its take the consumer beats again.
    "take_only_the_dead": (
        _shape(1, 1),
        [("lone", 0, 6_250), ("time", 1_260), *[("go", "h1.driver")] * 4, ("tick", 1, "beat"),
         *[("go", "h2.driver")] * 2],
    ),
    # A read is answered to a process that was frozen, taken for dead, and replaced.
    "give_back_only_ones_own": (
        _shape(1, 1),
        [*_SENT, ("go", "h1c1.reading", "late"), ("pause", "processes", 0), ("pause", "hosts", 0), ("lone", 1, 12_500),
         *[("go", "h2.driver")] * 4, ("signal", 1), ("time", 300), *_reads("h2c2"), ("time", 300), *_reads("h2c2"),
         ("wake", "processes", 0), *[("go", "h1c1.driver")] * 2],
    ),
    # The blocked read of a dead process is handed an entry between the take and the drop.
    "drop_only_the_empty": (
        _shape(2),
        [*_reads("h1c1"), ("kill", 0), ("reap", 0), ("go", "h1.driver"), ("go", "h1.driver"), *_SENT,
         ("go", "h1.driver")],
    ),
    # The signal of a take is lost with the connection on which it would have been heard.
    "marked_lane_told": (
        _shape(2),
        [*_SENT, ("go", "h1c1.reading"), *_reads("h1c2"), ("kill", 0), ("reap", 0), ("signal", 0),
         *[("go", "h1.driver")] * 4, ("deaf", 0)],
    ),
    # The reader's own look and the audit find the same lost entry.
    "audit_counts": (
        _shape(1),
        [*[*_reads("h1c1"), ("live", 2_000)] * 3, *_SENT, ("hear", "h1c1.reading"), ("go", "h1c1.reading", "lost"),
         ("audit", 0), ("go", "h1c1.driver"), ("pause", "processes", 0), ("live", 6_000), ("wake", "processes", 0),
         ("audit", 0)],
    ),
}  # fmt: skip
