"""What history tells: one record per attempt, and a gap where something is past its retention."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# Ends of an attempt beside the states of a message: it runs again after a failure, after its process died, or when
# somebody knows its task or it is not paused any more.
RETRIED, CRASHED, DEFERRED = "retried", "crashed", "deferred"
# What an attempt can have ended as, and the word for those that went wrong.
ENDED_AS = ("succeeded", "skipped", "cancelled", "expired", "dead", RETRIED, CRASHED, DEFERRED)
# What people did to a dead letter stands in the journal, too: these are no attempts, and `worker` is who it was.
REQUEUED, EDITED, PURGED = DONE_TO_DEAD = "requeued", "edited", "purged"
FAILED, FAILURES = "failed", frozenset({"dead", RETRIED, CRASHED})


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True, tag="attempt", tag_field="kind"):
    """What came of one attempt; instants in ms since 1970, UTC.

    Attributes:
        cursor: Where it stands in the queue's journal; grows.
        queue: The queue.
        id: Task id.
        task: Task name; empty where the message could not be read.
        state: How the attempt ended: a state, or ``retried``, ``crashed`` (its process died) or ``deferred`` (set aside
            without an attempt being counted); or what was done to a dead letter: ``requeued``, ``edited``, ``purged``.
        attempt: Which run, 1 = first.
        round: 1, and one more for each time it was retried after it was dead; attempts are counted in each anew.
        crashes: Processes that had died while they ran the message.
        lane, tags, entry: Where it waited, what a worker had to offer, and which entry it was.
        worker: The consumer that ran it.
        enqueued_at_ms: When this attempt came onto its lane; None for one that never did.
        started_at_ms: When the body began; None = it never did.
        ended_at_ms: When it ended.
        detail: Error text or reason, 500 characters at most; empty for success.
        error_type, error_digest: Class of the failure, and 12 hex digits that those which came the same way share.
        result_bytes: Size of what it returned, packed; 0 = nothing.
        parent: Id of the task message that sent it; empty = not known.
        trace_id: Of the trace that it belongs to; empty = none.
        replay_of: Id of the task message that it repeats; empty = none.
        args, kwargs: Arguments in their plain form; None and empty where its entry is gone (a gap says why).
        body: The stored message; None where its entry is gone.
    """

    cursor: str
    queue: str
    id: str
    task: str
    state: str
    attempt: int
    crashes: int
    lane: str
    tags: tuple[str, ...]
    entry: str
    worker: str
    enqueued_at_ms: int | None
    started_at_ms: int | None
    ended_at_ms: int
    detail: str
    error_type: str
    error_digest: str
    result_bytes: int
    parent: str
    trace_id: str
    round: int = 1
    replay_of: str = ""
    args: list[Any] | None = None
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    body: bytes | None = None


class HistoryGap(msgspec.Struct, frozen=True, kw_only=True, tag="gap", tag_field="kind"):
    """Something that was asked for is not kept any more; instants in ms since 1970, UTC.

    Attributes:
        queue: The queue.
        what: ``attempts`` = whole records are gone; ``arguments`` = records are there, and what was asked for is not.
        lane: Of which the arguments are gone; empty for attempts.
        since_ms: From when on something may be missing; None = from the beginning.
        until_ms: Up to when.
        trimmed_at_ms: When it went last; None = not known.
        why: The setting, or what else it was.
    """

    queue: str
    what: Literal["attempts", "arguments"]
    lane: str = ""
    since_ms: int | None = None
    until_ms: int
    trimmed_at_ms: int | None = None
    why: str = ""
