"""What a tap hears: each message that comes onto a lane, and a gap where some were gone before they were read."""

from __future__ import annotations

from typing import Any

import msgspec


class TapMessage(msgspec.Struct, frozen=True, kw_only=True, tag="message", tag_field="kind"):
    """One message that came onto a lane, as workers get it; instants in ms since 1970, UTC.

    Attributes:
        queue, lane, tags: Where it waits, and what a worker has to offer.
        entry: Which entry it is; grows within a lane.
        id, task: Task id and task name; empty where the message cannot be read.
        attempt: Which run it is for, 1 = first: a retry comes onto its lane again.
        round: 1, and one more for each time it was retried after it was dead.
        crashes: Processes that had died while they ran it, when it came onto the lane.
        enqueued_at_ms: When it came onto the lane.
        replay_of: Id of the task message that it repeats; empty = none.
        args, kwargs: Arguments in their plain form; None and empty where the message cannot be read.
        body: The stored message.
    """

    queue: str
    lane: str
    tags: tuple[str, ...]
    entry: str
    id: str
    task: str
    attempt: int
    round: int
    crashes: int
    enqueued_at_ms: int
    replay_of: str = ""
    args: list[Any] | None = None
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    body: bytes = b""


class TapGap(msgspec.Struct, frozen=True, kw_only=True, tag="gap", tag_field="kind"):
    """Messages that came and went before the tap read them; instants in ms since 1970, UTC.

    Attributes:
        queue, lane: Where.
        missed: How many.
        since_ms: They came behind this instant; None = not known.
        until_ms: And before this one.
        trimmed_at_ms: When the lane was trimmed last; None = it was not, so it was deleted.
        why: The setting by which it was, or another reason.
    """

    queue: str
    lane: str
    missed: int
    since_ms: int | None
    until_ms: int
    trimmed_at_ms: int | None = None
    why: str = ""
