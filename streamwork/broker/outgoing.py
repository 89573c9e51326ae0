"""What is being sent: bodies with their lanes, cut into chunks that keep Redis responsive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamwork.ids import random_id
from streamwork.store import scripts
from streamwork.store.commands import Command
from streamwork.store.keys import QueueKeys
from streamwork.store.limiting import Limited, submit
from streamwork.store.scheduling import schedule
from streamwork.wire.message import FIRST_ATTEMPT, encode_attempt

# One chunk stalls Redis for about 1 ms: 500 messages or 64 KB (measured, research/redis_streams.md section 10).
CHUNK_MESSAGES = 500
CHUNK_BYTES = 65_536
_NEW = encode_attempt(FIRST_ATTEMPT).encode()


class Outgoing(NamedTuple):
    """A task message about to be sent.

    Attributes:
        task_id: Its id.
        lane: Where it goes.
        body: What is stored.
        when: ``+ms`` from now on, or ms since 1970; empty = now. All messages of a chunk go now, or none.
        limits: Packed, as flow.lua reads them; empty = none. All messages of a chunk have some, or none.
    """

    task_id: str
    lane: str
    body: bytes
    when: str = ""
    limits: bytes = b""

    @property
    def way(self) -> str:
        """Which script sends it: what travels in one chunk goes the same way."""
        return "submit" if self.limits else "schedule" if self.when else "enqueue"


class Sender:
    """The identity under which one thread or loop numbers its chunks (rules 1, 2).

    Not shared between threads, and thrown away after a fork or an unknown outcome: a number is used for one chunk only.

    Args:
        max_lanes: Bound of lanes per queue.
        limits: Bounds of backlogs by queue, ``*`` = every other one; None or 0 = none.
    """

    __slots__ = ("_limits", "_numbers", "id", "max_lanes")

    def __init__(self, max_lanes: int, limits: Mapping[str, int] | None = None) -> None:
        self.id = random_id()
        self.max_lanes = max_lanes
        self._limits = limits
        self._numbers: dict[str, int] = {}

    def command(self, keys: QueueKeys, chunk: Sequence[Outgoing], now_ms: int) -> Command[list[str]]:
        """Return the command for the next chunk of a queue; the same number until `sent` is called."""
        number = self._numbers.get(keys.tag, 0) + 1
        most = self._limits.get(keys.queue, self._limits.get("*", 0)) if self._limits else 0
        if chunk[0].limits:
            return self._submit(keys, number, chunk, now_ms, most)
        if chunk[0].when:
            records = [(one.task_id, one.when, b"%b\n%b\n%b" % (one.lane.encode(), _NEW, one.body)) for one in chunk]
            return schedule(keys, self.id, number, records, scripts.SENDER_LIFE_MS, most)
        lanes: dict[str, int] = {}
        items: list[int | bytes] = []
        for message in chunk:
            items.append(lanes.get(message.lane) or lanes.setdefault(message.lane, len(lanes) + 1))
            items.append(message.body)
        return scripts.enqueue(keys, self.id, number, list(lanes), items, now_ms, self.max_lanes, most)

    def _submit(
        self, keys: QueueKeys, number: int, chunk: Sequence[Outgoing], now_ms: int, most: int
    ) -> Command[list[str]]:
        lanes: dict[str, int] = {}
        messages = [
            Limited(
                lanes.get(one.lane) or lanes.setdefault(one.lane, len(lanes) + 1), one.task_id, one.when, _NEW,
                one.limits, one.body,
            )
            for one in chunk
        ]  # fmt: skip
        sender = self.id, number, scripts.SENDER_LIFE_MS
        return submit(keys, sender, list(lanes), messages, now_ms, self.max_lanes, most)

    def sent(self, keys: QueueKeys) -> None:
        """Count the chunk as answered."""
        self._numbers[keys.tag] = self._numbers.get(keys.tag, 0) + 1
