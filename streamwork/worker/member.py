"""What a keeper keeps: the port of a consumer, and the facts about a queue that its services share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from streamwork.store.keys import QueueKeys


class Member(Protocol):
    """A consumer that is kept alive, as the keeper sees it."""

    @property
    def name(self) -> str:
        """Consumer name now."""
        ...

    @property
    def claimed_at_ms(self) -> int:
        """When it last had an answer to a read, or had no reason to read, steady ms; 0 = not yet."""
        ...

    def beaten(self, at_ms: int) -> None:
        """Hear that the beat sent at this steady instant was good."""

    def fenced(self) -> None:
        """Hear that this consumer was declared dead: what it holds is lost."""

    def lanes_changed(self, queue: str, lanes: list[str], fleet: int) -> None:
        """Hear which lanes a queue has, and how many consumers it has."""

    def paused_changed(self, queue: str, marks: list[str]) -> None:
        """Hear what of a queue is paused: ``queue``, ``task:…``, ``group:…``."""

    def lane_returned(self, queue: str, lane: str) -> None:
        """Hear that a lane holds entries to adopt."""

    def cancel_asked(self, queue: str, task_ids: list[str]) -> None:
        """Hear that task messages were marked as cancelled."""

    def terminate_asked(self, queue: str, task_ids: list[str]) -> None:
        """Hear that runs of task messages, marked as cancelled, are to be ended."""


class QueueFacts:
    """What the services of one queue share.

    Attributes:
        lanes: Those that are known.
        fleet: How many consumers it has.
        on_duty: Whether this supervisor's reaper has the duty.
        signals: How many lanes were heard of by a signal so far.
        tell: Takes an event: its type, and what is known of it (`teller.Teller.tell`).
    """

    def __init__(self, keys: QueueKeys) -> None:
        self.keys = keys
        self.lanes: list[str] = []
        self.fleet = 0
        self.on_duty = False
        self.paused: set[str] = set()
        self.signals = 0
        self.tell: Callable[..., None] = _nobody
        self._heard_at: dict[str, int] = {}

    def hear(self, lane: str) -> None:
        """Hear by a signal that there is this lane."""
        self.signals += 1
        self._heard_at[lane] = self.signals
        if lane not in self.lanes:
            self.lanes.append(lane)

    def heard_since(self, signals: int) -> list[str]:
        """Return the lanes heard of since there were so many signals: a list that was asked for then may lack them."""
        return [lane for lane, at in self._heard_at.items() if at > signals]


def _nobody(_type: str, **_facts: Any) -> None:
    """Tell nobody."""
