"""The states of a task message."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a task message is in its life.

    ``waiting → running → succeeded | failed | skipped``; a retry goes back over ``scheduled``; what will not run again
    by itself is ``dead``; what had not begun in time is ``expired``.
    """

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"

    @property
    def is_end(self) -> bool:
        """Whether a task message in this state will not run again by itself."""
        return self in _ENDS


_ENDS = frozenset({State.SUCCEEDED, State.SKIPPED, State.DEAD, State.CANCELLED, State.EXPIRED})
