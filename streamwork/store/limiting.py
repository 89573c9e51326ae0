"""Task messages with limits: what sends them, and what says that they start (flow.lua)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from streamwork.store.commands import Arg, Command, Script, call_script
from streamwork.store.keys import QueueKeys

SUBMIT = Script("submit")
BEGIN = Script("begin")
SWEEP = Script("sweep")


class Limited(NamedTuple):
    """A task message with limits, ready for submit.lua.

    Attributes:
        lane: Where it goes, its position in the chunk's list from 1.
        task_id: Its id.
        when: ``+ms`` from now on, or ms since 1970; empty = now.
        past: Attempt record.
        limits: Packed, as flow.lua reads them.
        body: What is stored.
    """

    lane: int
    task_id: str
    when: str
    past: bytes
    limits: bytes
    body: bytes


def submit(
    keys: QueueKeys, sender: tuple[str, int, int], lanes: Sequence[str], messages: Sequence[Limited], now_ms: int,
    most_lanes: int, most: int = 0,
) -> Command[list[str]]:  # fmt: skip
    """Send one chunk; answers per message its entry, or what else came of it (see submit.lua).

    Args:
        keys: The queue.
        sender: Id of the sender, the chunk's number, life of the sender's mark in ms.
        lanes: Lane names used by the chunk.
        messages: What is sent.
        now_ms: Kept as a new lane's creation time.
        most_lanes: Bound of lanes per queue.
        most: Bound of the queue's backlog; 0 = none.
    """
    sender_id, number, life_ms = sender
    script_keys = [
        keys.sender(sender_id), keys.lanes, keys.added, keys.control, keys.cancelled, keys.due, keys.due_body,
        keys.moved, *keys.flow_keys,
    ]  # fmt: skip
    for lane in lanes:
        script_keys += (keys.lane(lane), keys.bell(lane))
    items: list[Arg] = [part for message in messages for part in message]
    if most:
        script_keys += (keys.parked_body, keys.settled, keys.due)
        items.append(most)
    return call_script(
        SUBMIT,
        script_keys,
        (number, life_ms, most_lanes, now_ms, len(lanes), *lanes, *items),
        lambda reply: bytes(reply).decode().split(","),
    )


class Beginning(NamedTuple):
    """A delivery with a rate, about to begin: task id, entry, delivery count, attempt record, body."""

    task_id: str
    entry: bytes
    delivered: int
    past: bytes
    body: bytes


def begin(keys: QueueKeys, lane: str, consumer: str, deliveries: Sequence[Beginning]) -> Command[list[int]]:
    """Say that deliveries of one lane start; answers 1 = it may, 0 = it waits again, -1 = it is not this consumer's."""
    script_keys = [
        keys.lane(lane), keys.added, keys.control, keys.due, keys.due_body, keys.moved, *keys.flow_keys, keys.settled,
        keys.suspects, keys.kept,
    ]  # fmt: skip
    items: list[Arg] = [part for delivery in deliveries for part in delivery]
    return call_script(BEGIN, script_keys, (consumer, lane, *items), lambda reply: [int(one) for one in reply])


def sweep(keys: QueueKeys, what: str, names: Sequence[Arg], lane: str = "") -> Command[int]:
    """Free what belongs to task messages that are nowhere any more; answers how much.

    Args:
        keys: The queue.
        what: ``flow`` (names are task ids), ``unique`` or ``rates`` (fields), or ``counts`` (a number: only where no
            more messages than that have limits).
        names: Which are looked at.
        lane: Where those task ids were; empty = in due or in a line.
    """
    used = [
        keys.due, keys.due_body, keys.moved, keys.added, keys.control, *keys.flow_keys, keys.restoring,
        *([keys.lane(lane)] if lane else []),
    ]  # fmt: skip
    return call_script(SWEEP, used, (what, lane, *names), int)
