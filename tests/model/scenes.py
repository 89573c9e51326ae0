"""Schedules written by hand: what chance finds once in ten thousand. Each shows one guard of `mutations.MUTATIONS`."""

from __future__ import annotations

from tests.model.client import IDS
from tests.model.schedule import ALL_TAGS, Shape


def _shape(*processes, messages=1, moods=(), is_prepared=True):
    """Messages on one lane, and so many processes for each supervisor, all of which read it."""
    tags = {f"h{number}": [ALL_TAGS] * count for number, count in enumerate(processes, 1)}
    lane_of = dict.fromkeys(IDS[:messages], "1:")
    return Shape(
        7, len(processes), 1, messages, tags, ["1:"], lane_of, frozenset(), is_prepared, True, moods, False, {}
    )


def _reads(name):
    """Let a process go on until it waits for work; what is impossible is left out of a schedule."""
    return [("hear", f"{name}.reading"), ("go", f"{name}.driver"), ("go", f"{name}.reading")] * 6


_SENT = [("send", 0, 1), ("go", "p1.driver")]
_KEPT = [("live", 3_000), ("keep", 0), ("live", 1_000), ("keep", 0)]
# Two messages in the hands of the first process, and of the older one only a copy is left.
_TWO = [("send", 0, 2), ("go", "p1.driver"), *_reads("h1c1")]
_TWO_KEPT = [*_TWO, *_KEPT]
# Their process dies, and that is seen to.
_KILLED = [("kill", 0), ("reap", 0), *[("go", "h1.driver")] * 4]

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
    # A process dies, is told to end, or loses its group, with a message in hand of which only the copy is left.
    "kept_for_the_dead": (
        _shape(1, messages=2, moods=("keep",)),
        [*_TWO_KEPT, *_KILLED],
    ),
    "kept_no_more_pending": (_shape(1, messages=2, moods=("keep",)), [*_TWO_KEPT, *_KILLED]),
    # Nobody reads what was given back before only its copy is left.
    "kept_for_adopters": (_shape(1, messages=2, moods=("keep",)), [*_TWO, *_KILLED, *_KEPT]),
    # Who asks has not heard which entry it is, and comes too late.
    "cancel_of_the_ended": (
        _shape(1),
        [("send", 0, 1), ("go", "p1.driver", "late"), *_reads("h1c1"), ("end", 0, 0, "S"),
         *[("go", "h1c1.driver")] * 3, ("cancel", 0, 0), ("go", "p1.driver", "late")],
    ),
    "kept_for_the_released": (
        _shape(1, messages=2, moods=("keep",)),
        [*_TWO_KEPT, ("leave", 0), ("time", 1_100), ("time", 1_100), *[("go", "h1c1.driver")] * 4],
    ),
    "kept_for_the_healer": (
        _shape(1, messages=2, moods=("keep",)), [*_TWO_KEPT, ("ungroup", 0), ("time", 2_100)],
    ),
    # A lane is made, and told of, while a list that was asked for before that is on its way.
    "heard_lanes_kept": (
        _shape(1, messages=2, is_prepared=False),
        [("fork", 0), ("go", "h1.driver"), ("go", "h1.driver", "late"), *_SENT, ("signal", 0), ("hear", "h1.driver"),
         *[*_reads("h1c1"), ("end", 0, 0, "S")] * 2, ("time", 3_000), *_SENT],
    ),
    # The reader's own look and the audit find the same lost entry.
    "audit_counts": (
        _shape(1),
        [*[*_reads("h1c1"), ("live", 2_000)] * 3, *_SENT, ("hear", "h1c1.reading"), ("go", "h1c1.reading", "lost"),
         ("audit", 0), ("go", "h1c1.driver"), ("pause", "processes", 0), ("live", 6_000), ("wake", "processes", 0),
         ("audit", 0)],
    ),
}  # fmt: skip

# What chance hardly finds, and shows no guard: an answer that a script gives where two are at it at once.
ANSWERS = {
    # The group is lost a second time while what was lost with the first is being brought back.
    ("restore", "changed"): (
        _shape(1),
        [("keep", 0), *_SENT, *_reads("h1c1"), ("ungroup", 0), ("time", 2_100), *_reads("h1c1"),
         ("tick", 0, "restorer"), *[("go", "h1.driver")] * 2, ("ungroup", 0), ("time", 2_100), *_reads("h1c1"),
         *[("go", "h1.driver")] * 2],
    ),
    # A process is put on the list again between the beat that found no life of it and the look whether it was taken.
    ("revive", "ok"): (
        _shape(1),
        [("fork", 0), ("go", "h1.driver"), ("go", "h1.driver", "dead"), ("clock", 60_000), ("tick", 0, "beat"),
         ("go", "h1.driver"), ("go", "h1.driver", "late"), ("time", 150), ("go", "h1.driver"), ("hear", "h1.driver"),
         *[("go", "h1.driver")] * 4],
    ),
    # What was lost with the group had all been settled.
    ("restore", "all settled"): (
        _shape(1),
        [("keep", 0), *_SENT, *_reads("h1c1"), ("end", 0, 0, "S"), *[("go", "h1c1.driver")] * 3, ("ungroup", 0),
         ("time", 2_100), *_reads("h1c1"), ("tick", 0, "restorer"), *[("go", "h1.driver")] * 5],
    ),
    # A frozen process was taken for dead; what it ran fails, and is to be tried again.
    ("settle", "lost"): (
        _shape(1, 1),
        [*_SENT, *_reads("h1c1"), ("pause", "processes", 0), ("pause", "hosts", 0), ("lone", 1, 12_500),
         *[("go", "h2.driver")] * 4, ("wake", "processes", 0), ("end", 0, 0, "R"), *[("go", "h1c1.driver")] * 3],
    ),
    ("heal", "from the mark"): SCENES["kept_for_the_healer"],
    ("take", "alive"): SCENES["take_only_the_dead"],
    ("release", "nothing"): SCENES["give_back_only_ones_own"],
}  # fmt: skip
