"""What a keeper keeps: the port of a consumer, and the facts about a queue that its services share."""

from __future__ import annotations

from typing import Protocol

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


class QueueFacts:
    """What the services of one queue share."""

    def __init__(self, keys: QueueKeys) -> None:
        self.keys = keys
        self.lanes: list[str] = []
        self.fleet = 0
        self.on_duty = False
        self.paused: set[str] = set()
