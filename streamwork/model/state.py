"""The states of a task message."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a task message is in its life.

    ``waiting → running → succeeded | failed | skipped``; a retry goes back over ``scheduled``; what will not run again
    by itself is ``dead``; what had not begun in time is ``expired``. What was cancelled is ``cancelling``
    until a worker has dropped it, or has ended its run where that was asked for.
    """

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
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

    def marked(self, is_cancelled: bool, is_ended: bool) -> State:
        """Return this, or CANCELLING where that is what a mark of a cancel means here.

        Args:
            is_cancelled: It is not to run (again).
            is_ended: A run that goes on is to be ended.
        """
        is_meant = (is_cancelled and self in (State.SCHEDULED, State.WAITING)) or (is_ended and self == State.RUNNING)
        return State.CANCELLING if is_meant else self


_ENDS = frozenset({State.SUCCEEDED, State.SKIPPED, State.DEAD, State.CANCELLED, State.EXPIRED})
