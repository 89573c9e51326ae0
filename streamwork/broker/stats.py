"""How the queues stand and who works on them. Nothing writes or scans; the cost grows with lanes and consumers only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from streamwork.broker.coverage import Registration, Unserved, is_served, registered
from streamwork.broker.steps import Steps, at_once, pairs, refused, texts, together
from streamwork.model.lane import lane_tags
from streamwork.model.pausing import HELD_FROM, is_held
from streamwork.store.commands import plain
from streamwork.store.keys import GROUP, RETURNED_CONSUMER, QueueKeys, queues


class LaneStats(msgspec.Struct, frozen=True):
    """One lane.

    Attributes:
        lane: ``<level>:<tags>``.
        tags: What a worker must offer to read it.
        waiting: Undelivered, or given back for adoption.
        running: In the hands of a consumer.
        has_group: False when the consumer group is gone; the next reader makes it anew.
        lost: What was unsettled on it when it was deleted; nothing of it waits any more.
        is_served: False in an `Overview` when no live worker takes from it.
    """

    lane: str
    tags: list[str]
    waiting: int
    running: int
    has_group: bool = True
    is_served: bool = True
    lost: int = 0


class QueueStats(msgspec.Struct, frozen=True):
    """One queue, read at one instant.

    Attributes:
        queue: Its name.
        waiting: Task messages that could run now, or when a limit has room for them.
        running: In the hands of a consumer.
        scheduled: Waiting for their time: retries, and what no worker knew.
        dead: Dead letters kept.
        succeeded: Ended so, ever; likewise skipped, cancelled, expired, died and retried.
        next_at_ms: When the next scheduled one is due; None = none is.
        oldest_ms: How long the first undelivered one has waited; None = there is none.
        lanes: Lane by lane.
        in_hand: Consumer name to entries owned.
        parked: Of those that wait, how many wait for a limit: they are on no lane.
        held: Set aside until a paused task is resumed; not among the scheduled.
        paused: What of it is paused: ``queue``, ``task:…``, ``group:…``.
    """

    queue: str
    waiting: int
    running: int
    scheduled: int
    dead: int
    succeeded: int
    skipped: int
    cancelled: int
    expired: int
    died: int
    retried: int
    next_at_ms: int | None
    oldest_ms: int | None
    lanes: list[LaneStats]
    in_hand: dict[str, int]
    parked: int = 0
    held: int = 0
    paused: list[str] = []


class WorkerStats(msgspec.Struct):
    """One worker process.

    Attributes:
        consumer: Its name in Redis, one per start.
        worker: The supervisor's name.
        host: Where.
        pid: Process.
        tags: What it offers.
        slots: Deliveries it can hold.
        queues: Which it reads.
        started_at_ms: When it registered.
        in_hand: Entries it owns, all queues together.
        alive: Its liveness key is there.
        claimed_at_ms: When it last asked for work, or had no slot free to ask for any, as far as it has said, also
            before it fell silent; None = not yet, or not within the hour.
    """

    consumer: str
    worker: str = ""
    host: str = ""
    pid: int = 0
    tags: list[str] = msgspec.field(default_factory=list)
    slots: int = 0
    queues: list[str] = msgspec.field(default_factory=list)
    started_at_ms: int = 0
    in_hand: int = 0
    alive: bool = False
    claimed_at_ms: int | None = None

    @property
    def name(self) -> str:
        """Host and pid of its supervisor, as in the log; the consumer name where the registration cannot be read."""
        return self.worker.rpartition("-")[0] or self.consumer


class Overview(msgspec.Struct, frozen=True):
    """All queues of a namespace and all workers on them."""

    queues: list[QueueStats]
    workers: list[WorkerStats]

    @property
    def unserved(self) -> list[Unserved]:
        """What waits where no live worker takes it; one for each queue and tag set."""
        counts: dict[tuple[str, tuple[str, ...]], int] = {}
        for queue in self.queues:
            for lane in queue.lanes:
                if lane.waiting and not lane.is_served:
                    place = queue.queue, tuple(lane.tags)
                    counts[place] = counts.get(place, 0) + lane.waiting
        return [Unserved(queue, list(tags), count) for (queue, tags), count in counts.items()]


def queue_names(namespace: str, known: Iterable[str] = ()) -> Steps[list[str]]:
    """Find the queues that anything was ever sent to or read from, and add the known ones; sorted."""
    (found,) = yield [plain("SMEMBERS", queues(namespace))]
    return sorted({name.decode() for name in found} | set(known))


def overview(namespace: str, names: Sequence[str]) -> Steps[Overview]:
    """Look at queues and their workers."""
    keys = [QueueKeys(namespace, name) for name in names]
    stats = yield from together([queue_stats(each) for each in keys])
    consumers = yield from together([registered(each) for each in keys])
    stats = [_with_coverage(*pair) for pair in zip(stats, consumers, strict=True)]
    return Overview(stats, _workers(stats, consumers))


def _with_coverage(queue: QueueStats, consumers: Mapping[str, Registration]) -> QueueStats:
    lanes = [msgspec.structs.replace(lane, is_served=is_served(lane.lane, consumers)) for lane in queue.lanes]
    return msgspec.structs.replace(queue, lanes=lanes)


def queue_stats(keys: QueueKeys) -> Steps[QueueStats]:
    """Look at one queue: exact for the instant of the second round (undelivered = added − settled − pending)."""
    (known,) = yield [plain("HKEYS", keys.lanes)]
    lanes = readable(known)
    streams = [keys.lane(lane) for lane in lanes]
    answers = yield at_once([
        plain("HGETALL", keys.added), plain("HGETALL", keys.settled), plain("HGETALL", keys.counts),
        plain("ZRANGE", keys.due, 0, 0, "WITHSCORES"), plain("ZCARD", keys.due), plain("ZCARD", keys.dead),
        plain("ZCOUNT", keys.due, HELD_FROM, "+inf"), plain("HKEYS", keys.paused),
        plain("HLEN", keys.parked_body), plain("TIME"),
        *(plain("XPENDING", stream, GROUP) for stream in streams),
        *(plain("XINFO", "GROUPS", stream) for stream in streams),
    ])  # fmt: skip
    added, settled, counts, head, due, dead, held, paused, parked, (now_s, _), *by_lane = answers[-1]
    pending, groups = by_lane[: len(lanes)], by_lane[len(lanes) :]
    in_hand: dict[str, int] = {}
    stats = [
        _lane_stats(lane, _number(added, lane) - _number(settled, lane), summary, in_hand, is_gone=_is_gone(group))
        for lane, summary, group in zip(lanes, pending, groups, strict=True)
    ]
    oldest = yield [
        plain("XRANGE", stream, "(" + last_delivered(group), "+", "COUNT", 1)
        for stream, group, lane in zip(streams, groups, stats, strict=True)
        if lane.waiting and lane.has_group
    ]
    waited_ms = [int(now_s) * 1000 - int(rows[0][0].partition(b"-")[0]) for rows in oldest if rows]
    ended = {name: int(number) for name, number in texts(counts).items()}
    return QueueStats(
        queue=keys.queue, waiting=sum(lane.waiting for lane in stats) + parked,
        running=sum(lane.running for lane in stats), scheduled=due - held,
        dead=dead, succeeded=ended.get("succeeded", 0), skipped=ended.get("skipped", 0),
        cancelled=ended.get("cancelled", 0), expired=ended.get("expired", 0),
        died=ended.get("dead", 0), retried=ended.get("retried", 0),
        next_at_ms=int(float(head[1])) if head and not is_held(float(head[1])) else None,
        oldest_ms=max(0, *waited_ms) if waited_ms else None,
        lanes=stats, in_hand=in_hand, held=held, parked=parked,
        paused=sorted(mark.decode(errors="replace") for mark in paused),
    )  # fmt: skip


def readable(names: Iterable[bytes]) -> list[str]:
    """Return the names that are a lane's, sorted; a stranger's among them hides no other."""
    found = (name.decode(errors="replace") for name in names)
    return sorted(name for name in found if re.match(r"[0-3]:", name))


def _number(flat: Sequence[bytes], lane: str) -> int:
    return int(pairs(flat).get(lane.encode(), 0))


def _is_gone(groups: Any) -> bool:
    return refused(groups) and "no such key" in str(groups)


def _lane_stats(lane: str, unsettled: int, summary: Any, in_hand: dict[str, int], *, is_gone: bool) -> LaneStats:
    if is_gone:
        return LaneStats(lane, sorted(lane_tags(lane)), 0, 0, has_group=False, lost=max(0, unsettled))
    pending, owned = 0, {}
    if not refused(summary):
        pending = summary[0]
        owned = {name.decode(): int(count) for name, count in summary[3] or ()}
    returned = owned.pop(RETURNED_CONSUMER, 0)
    for name, count in owned.items():
        in_hand[name] = in_hand.get(name, 0) + count
    # Garbage put into a lane by hand is not in `added`, so the difference may fall below zero until it is settled.
    waiting = max(0, unsettled - pending) + returned
    return LaneStats(lane, sorted(lane_tags(lane)), waiting, pending - returned, not refused(summary))


def last_delivered(groups: Any) -> str:
    """Return the last delivered id of our group in an answer to XINFO GROUPS; ``0-0`` where there is no such group."""
    for group in () if refused(groups) else groups:
        facts = pairs(group)
        if facts[b"name"] == GROUP.encode():
            return bytes(facts[b"last-delivered-id"]).decode()
    return "0-0"


def _workers(stats: list[QueueStats], registrations: list[dict[str, Registration]]) -> list[WorkerStats]:
    workers: dict[str, WorkerStats] = {}
    for queue, consumers in zip(stats, registrations, strict=True):
        for name, (registration, alive, claimed_at_ms) in consumers.items():
            worker = workers.get(name)
            if worker is None:
                worker = workers[name] = _worker(name, registration)
            worker.alive = worker.alive or alive
            worker.claimed_at_ms = max(worker.claimed_at_ms or 0, claimed_at_ms) or None
        for name, count in queue.in_hand.items():
            # One that owns entries without being registered was declared dead, or read after that.
            worker = workers.setdefault(name, WorkerStats(name, queues=[queue.queue]))
            worker.in_hand += count
    return sorted(workers.values(), key=lambda worker: (worker.started_at_ms, worker.consumer))


def _worker(name: str, registration: str) -> WorkerStats:
    try:
        facts = msgspec.json.decode(registration, type=dict[str, Any])
        return msgspec.convert({**facts, "consumer": name}, WorkerStats)
    except msgspec.MsgspecError:
        return WorkerStats(name)  # registered by another version
