"""What events tell: one fact each, typed by its name; and a gap where some are past their retention."""

from __future__ import annotations

from typing import Any

import msgspec

from streamwork.model.history import DONE_TO_DEAD, ENDED_AS

# What came of an attempt, or was done to a dead letter, is read from the journals; the rest has a stream of its own.
TASK_TYPES = {f"task.{state}": f"An attempt ended, as {state}." for state in ENDED_AS} | {
    f"task.{done}": f"A dead letter was {done}." for done in DONE_TO_DEAD
}
RARE_TYPES = {
    "worker.started": "A worker process begins to read.",
    "worker.draining": "It was told to end, and ends what it has.",
    "worker.stopped": "It has ended in order.",
    "worker.died": "It has ended otherwise: `detail` says how.",
    "worker.hung": "It makes no progress and is killed: `detail` says since when.",
    "worker.vanished": "Its liveness lapsed, and what it had was taken.",
    "worker.fenced": "It was declared dead while it lived, and begins anew.",
    "schedule.fired": "An occurrence was sent.",
    "schedule.passed_over": "An occurrence was not sent: the last run has not ended.",
    "schedule.added": "A schedule was added or replaced by hand.",
    "schedule.paused": "A schedule rests.",
    "schedule.resumed": "It goes on.",
    "schedule.removed": "It was removed.",
    "queue.paused": "A queue, or a task or group on it, is paused: `detail` is the reason.",
    "queue.resumed": "It goes on.",
    "queue.trimmed_early": "Redis is nearly full: history goes whatever the retention says.",
    "queue.lane_lost": "A lane was deleted with all that was on it.",
    "outage.began": "A worker's supervisor was kept from Redis.",
    "outage.ended": "Redis answers it again.",
}
TYPES = {**TASK_TYPES, **RARE_TYPES}


class Event(msgspec.Struct, frozen=True, kw_only=True, tag="event", tag_field="kind"):
    """One fact; instants in ms since 1970, UTC.

    Attributes:
        cursor: Where to go on behind it (`since`).
        type: One of `TYPES`, such as ``task.succeeded``.
        at_ms: When it happened; an event that Redis was away for is told later.
        queue: Of which queue; empty = of none, or of all.
        id, task: Task message and task; empty = it is of none.
        worker: The worker process or supervisor that it is of, or who did it; empty = not known.
        detail: Error text, reason or evidence; empty = none.
        facts: More, by type: ``schedule``, ``attempt``, ``round``, ``lane``, ``mark``, ``away_s``, …
    """

    cursor: str
    type: str
    at_ms: int
    queue: str = ""
    id: str = ""
    task: str = ""
    worker: str = ""
    detail: str = ""
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


class EventGap(msgspec.Struct, frozen=True, kw_only=True, tag="gap", tag_field="kind"):
    """Events that were asked for and are not kept any more; instants in ms since 1970, UTC.

    Attributes:
        queue: Whose journal it is; empty = the namespace's own events.
        since_ms, until_ms: From when on something may be missing, and up to when.
        trimmed_at_ms: When it went last.
        why: The setting, or what else it was.
    """

    queue: str
    since_ms: int
    until_ms: int
    trimmed_at_ms: int
    why: str
