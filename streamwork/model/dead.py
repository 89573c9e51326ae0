"""What dead letters tell, and what came of a retry or a purge of them."""

from __future__ import annotations

from typing import Any

import msgspec

# Why a task message can be dead.
REASONS = ("failed", "rejected", "quarantined", "lost", "undecodable", "unknown_task", "settle_error")


class DeadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A task message that will not run again by itself; instants in ms since 1970, UTC.

    Attributes:
        queue: The queue.
        id: Task id, or ``entry-…`` where what stood on the lane has none.
        task: Task name; empty where it could not be read.
        reason: ``failed`` (its attempts are used up), ``rejected``, ``quarantined`` (it killed its process), ``lost``
            (its workers vanished), ``undecodable``, ``unknown_task`` or ``settle_error``.
        error_type, error, traceback: What was raised last, or the evidence: how its process ended.
        lane, tags: Where it waited, and what a worker has to offer.
        attempt: The last run, 1 = first.
        crashes, lost: Processes that died while they ran it; workers that vanished with it.
        round: 1, and one more for each time it was retried after it was dead.
        died_at_ms: When.
        expires_at_ms: It does not begin after this instant; None = whenever.
        replay_of: Id of the task message that it repeats; empty = none.
        args, kwargs: Arguments in their plain form; None and empty where they cannot be read.
        letter: All of it, as it is stored.
    """

    queue: str
    id: str
    task: str
    reason: str
    error_type: str
    error: str
    traceback: str
    lane: str
    tags: tuple[str, ...]
    attempt: int
    crashes: int
    lost: int
    round: int
    died_at_ms: int
    expires_at_ms: int | None = None
    replay_of: str = ""
    args: list[Any] | None = None
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    letter: bytes


class DeadDone(msgspec.Struct, frozen=True):
    """What came of a retry or a purge.

    Attributes:
        done: So many were retried or purged, or would be.
        refused: Why not, by task id.
    """

    done: int
    refused: dict[str, str]
