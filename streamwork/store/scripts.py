"""One function per script of ``lua/``, each returns a `Command`; arguments are in the order of the scripts' headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamwork.store.archiving import IMPORT
from streamwork.store.burying import BURYING
from streamwork.store.commands import Arg, Command, Script, call_script, plain
from streamwork.store.healing import HEAL, MAINTAIN, RESTORE, TRIM
from streamwork.store.keys import GROUP, QueueKeys
from streamwork.store.limiting import BEGIN, SUBMIT, SWEEP
from streamwork.store.looking import LOOK
from streamwork.store.pausing import PAUSE, UNHOLD
from streamwork.store.planning import FIRE, PLAN
from streamwork.store.scheduling import SCHEDULE
from streamwork.store.tapping import TAPPING
from streamwork.store.telling import ANNOUNCE

ENQUEUE = Script("enqueue")
SETTLE = Script("settle")
PROMOTE = Script("promote")
REGISTER, REVIVE, PULSE = Script("register"), Script("revive"), Script("pulse")
TAKE, RELEASE, ADOPT = Script("take"), Script("release"), Script("adopt")
DROP_CONSUMER, CANCEL, WATCH = Script("drop_consumer"), Script("cancel"), Script("watch")

ALL_SCRIPTS = (
    ENQUEUE, SETTLE, PROMOTE, REGISTER, REVIVE, PULSE, TAKE, RELEASE, ADOPT, HEAL, RESTORE, DROP_CONSUMER, MAINTAIN,
    CANCEL, WATCH, TRIM, LOOK, SCHEDULE, SUBMIT, BEGIN, SWEEP, PAUSE, UNHOLD, FIRE, PLAN, IMPORT,
    *BURYING, *TAPPING, ANNOUNCE,
)  # fmt: skip

# How the mark of a run that is to be ended goes on behind who asked.
TERMINATE = b" terminate"

# A sender that is silent for longer starts a new mark; resends stop after 60 s, so ten times that is safe (rule 1).
SENDER_LIFE_MS = 600_000
# A chunk of outcomes is sent again until Redis answers; longer than this without Redis, its consumer is fenced anyway.
SETTLE_LIFE_MS = 600_000
CLAIM_LIFE_MS = 3_600_000  # only people read it


def _texts(reply: bytes) -> list[str]:
    return reply.decode().split(",") if reply else []


def enqueue(
    keys: QueueKeys, sender: str, number: int, lanes: Sequence[str], items: Sequence[Arg], now_ms: int, most_lanes: int,
    most: int = 0,
) -> Command[list[str]]:  # fmt: skip
    """Put one chunk on its lanes; answers the entry ids in order.

    Args:
        keys: The queue.
        sender: Id of the sender, 96 random bits.
        number: The chunk's number, one more than the sender's last on this queue.
        lanes: Lane names used by the chunk.
        items: Alternating position in `lanes` (from 1) and body.
        now_ms: Kept as a new lane's creation time.
        most_lanes: Bound of lanes per queue.
        most: Bound of the queue's backlog; 0 = none.
    """
    script_keys = [keys.sender(sender), keys.lanes, keys.added, keys.control]
    for lane in lanes:
        script_keys += (keys.lane(lane), keys.bell(lane))
    if most:
        script_keys += (keys.parked_body, keys.settled, keys.due)
    return Command(
        ("EVALSHA", ENQUEUE.sha, len(script_keys), *script_keys,
         number, SENDER_LIFE_MS, most_lanes, now_ms, len(lanes), *lanes, *items, *((most,) if most else ())),
        _texts, ENQUEUE,
    )  # fmt: skip


class SettleItem(NamedTuple):
    """One delivery's end, ready for the settle script.

    Attributes:
        op: Operation letter and flags, as in settle.lua.
        lane: Lane name.
        entry: Entry id.
        delivered: Delivery count, for the owner check.
        journal: Journal record.
        rest: What follows by operation; for S K C D the reply's position comes third and is filled in here.
        result_key: Where the result goes; ends in the task id.
        reply_key: Reply stream or None.
        size: Bytes this item adds to the request, roughly.
    """

    op: str
    lane: str
    entry: bytes
    delivered: int
    journal: bytes
    rest: tuple[Arg, ...]
    result_key: str
    reply_key: str | None
    size: int


def settle(keys: QueueKeys, consumer: str, items: Sequence[SettleItem]) -> Command[list[int]]:
    """Settle a chunk; answers the positions (from 0) that another owner holds."""
    lanes: dict[str, int] = {}
    replies: dict[str, int] = {}
    argv: list[Arg] = []
    results: list[str] = []
    for op, lane, entry, delivered, journal, rest, result_key, reply_key, _ in items:
        position = lanes.get(lane) or lanes.setdefault(lane, len(lanes) + 1)
        results.append(result_key)
        if op[0] == "R":
            argv += (op, position, entry, delivered, journal, *rest)
        else:
            reply = (
                0 if reply_key is None else replies.get(reply_key) or replies.setdefault(reply_key, len(replies) + 1)
            )
            argv += (op, position, entry, delivered, journal, rest[0], rest[1], reply, *rest[2:])
    script_keys = [
        keys.settled, keys.counts, keys.journal, keys.due, keys.due_body, keys.dead, keys.dead_body, keys.moved,
        keys.suspects, keys.cancelled, keys.control, keys.settle_mark(consumer), *map(keys.lane, lanes), *replies,
        *results, *map(keys.bell, lanes), keys.added, *keys.flow_keys, keys.kept, keys.nearly_full,
    ]  # fmt: skip
    head: tuple[Arg, ...] = (consumer, len(lanes), len(replies), len(keys.result_prefix), SETTLE_LIFE_MS, *lanes)
    return Command(("EVALSHA", SETTLE.sha, len(script_keys), *script_keys, *head, *argv), _lost_positions, SETTLE)


def _lost_positions(reply: bytes) -> list[int]:
    return [int(part.partition(":")[0]) - 1 for part in _texts(reply)]


class Promoted(NamedTuple):
    """What one promotion did: messages moved, when the next is due (ms or None), and whether the lane list is old."""

    moved: int
    next_at_ms: int | None
    unknown_lane: bool


def promote(keys: QueueKeys, lanes: Sequence[str], most: int) -> Command[Promoted]:
    """Move at most `most` due task messages to their lanes."""
    script_keys = [keys.due, keys.due_body, keys.lanes, keys.added, keys.moved, keys.control, *keys.flow_keys]
    for lane in lanes:
        script_keys += (keys.lane(lane), keys.bell(lane))

    def read(reply: list[Any]) -> Promoted:
        next_at_ms = int(float(reply[1]))
        return Promoted(reply[0], None if next_at_ms < 0 else next_at_ms, bool(reply[2]))

    return call_script(PROMOTE, script_keys, (most, len(lanes), *lanes), read)


def register(keys: QueueKeys, consumer: str, registration: bytes, ttl_ms: int) -> Command[int]:
    """Register a consumer and start its liveness."""
    return call_script(REGISTER, (keys.consumers, keys.alive(consumer)), (consumer, registration, ttl_ms), int)


def beat(keys: QueueKeys, consumer: str, ttl_ms: int) -> Command[bool]:
    """Renew a consumer's liveness; False when the key had lapsed (ask `revive` then)."""
    return plain("PEXPIRE", keys.alive(consumer), ttl_ms, read=bool)


def claimed(keys: QueueKeys, consumer: str, at_ms: int) -> Command[Any]:
    """Say when a consumer last asked for work; kept for an hour, whether it is alive or not. Refused at maxmemory."""
    return plain("SET", keys.claimed(consumer), at_ms, "PX", CLAIM_LIFE_MS)


def revive(keys: QueueKeys, consumer: str, ttl_ms: int) -> Command[str]:
    """Answer a lapsed beat: ``ok``, ``revived`` or ``fenced``."""
    return call_script(REVIVE, (keys.alive(consumer), keys.consumers), (consumer, ttl_ms), bytes.decode)


class Pulse(NamedTuple):
    """Whether this reaper is on duty, whether the pulse had lapsed, and how long it still lives, ms."""

    on_duty: bool
    lapsed: bool
    left_ms: int


def pulse(keys: QueueKeys, reaper: str, life_ms: int, grace_ms: int, near_ms: int) -> Command[Pulse]:
    """Renew, take over or watch the reaper's pulse."""
    return call_script(
        PULSE,
        (keys.pulse, keys.grace),
        (reaper, life_ms, grace_ms, near_ms),
        lambda r: Pulse(bool(r[0]), bool(r[1]), r[2]),
    )


def take(
    keys: QueueKeys,
    lane: str,
    consumer: str,
    *,
    mode: str,
    most: int = 100,
    evidence: str = "",
    started: Sequence[Arg] = (),
) -> Command[int]:
    """Mark a consumer's entries of a lane for adoption; see take.lua for the modes and answers."""
    used = (
        keys.lane(lane), keys.returned, keys.control, keys.bell(lane), keys.grace, keys.alive(consumer), keys.consumers,
        keys.suspects, keys.kept, keys.due, keys.due_body, keys.moved, keys.settled, keys.pulse,
    )  # fmt: skip
    return call_script(TAKE, used, (consumer, lane, most, mode, evidence, *started), int)


def release(keys: QueueKeys, lane: str, consumer: str, entries: Sequence[tuple[bytes, int]]) -> Command[int]:
    """Give entries (with their delivery counts) back in place; answers how many were still this consumer's."""
    return call_script(
        RELEASE,
        (keys.lane(lane), keys.returned, keys.control, keys.bell(lane), keys.kept, keys.due, keys.due_body, keys.moved,
         keys.suspects, keys.settled),
        (consumer, lane, *(part for entry in entries for part in entry)),
        int,
    )  # fmt: skip


class Adopted(NamedTuple):
    """One adopted entry with its delivery count; `fields` is None where it is gone from the stream.

    `suspicion` is what q:suspects holds of it.
    """

    entry: bytes
    fields: list[bytes] | None
    delivered: int
    suspicion: bytes | None


def adopt(
    keys: QueueKeys, lane: str, consumer: str, most: int, own: Sequence[tuple[bytes, int]] = ()
) -> Command[list[Adopted]]:
    """Take over marked entries of a lane, or (with `own`) entries of its own that the consumer lost track of.

    Those come with their delivery counts: what has another one by now is not lost any more.
    """
    return call_script(
        ADOPT,
        (keys.lane(lane), keys.returned, keys.suspects, keys.settled, keys.kept, keys.due, keys.due_body, keys.moved,
         keys.control),
        (consumer, lane, most, consumer if own else "returned", *(part for entry in own for part in entry)),
        lambda reply: [
            Adopted(entry, fields or None, delivered, suspicion) for entry, fields, delivered, suspicion in reply
        ],
    )  # fmt: skip


def drop_consumer(keys: QueueKeys, lane: str, consumer: str) -> Command[bool]:
    """Remove an empty consumer from a lane's group."""
    return call_script(DROP_CONSUMER, (keys.lane(lane),), (consumer,), bool)


def cancel(
    keys: QueueKeys, task_id: str, by: str, record: bytes, keep_ms: int, client: str, *, lane: str = "",
    entry: str = "", terminate: bool = False, journal: bytes = b"",
) -> Command[str]:  # fmt: skip
    """Cancel or mark a task message; answers ``cancelled``, ``requested`` or ``ended``.

    Args:
        keys: The queue.
        task_id: The message.
        by: Who asks.
        record: Result record for one that is cancelled at once.
        keep_ms: How long that record is kept, ≥ 1.
        client: Whose reply stream hears of it.
        lane: Lane that the message was sent to; empty = not known.
        entry: Its entry there; with it, a message that has ended without a result is known to have ended, and no mark
            is left behind. Empty = not known.
        terminate: A run that goes on is to be ended.
        journal: Journal record for one that is cancelled at once; empty = none.
    """
    return call_script(
        CANCEL,
        (keys.due, keys.due_body, keys.cancelled, keys.control, keys.result(task_id), keys.counts, keys.reply(client),
         keys.dead, keys.moved, keys.lane(lane), keys.restoring, keys.kept, keys.added, *keys.flow_keys, keys.journal),
        (task_id, by, record, keep_ms, entry if lane else "", lane, TERMINATE.decode() if terminate else "", journal),
        bytes.decode,
    )  # fmt: skip


def watch(keys: QueueKeys, client: str, life_ms: int) -> Command[bool]:
    """Make a client's reply stream exist or live on; answers whether it had to be made."""
    return call_script(WATCH, (keys.reply(client),), (life_ms,), bool)


def read_new(lanes: Sequence[tuple[str, str]], consumer: str, count: int, block_ms: int | None) -> Command[Any]:
    """Read undelivered entries of ``(queue tag key, …)`` streams: `lanes` holds (stream key, …) first members.

    Args:
        lanes: Tuples whose first member is the stream's key, highest priority first.
        consumer: Who reads.
        count: Most entries per stream, ≥ 1.
        block_ms: Wait this long where there is nothing; None = do not wait.
    """
    blocking: tuple[Arg, ...] = () if block_ms is None else ("BLOCK", block_ms)
    streams = [lane[0] for lane in lanes]
    return plain(
        "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, *blocking, "STREAMS", *streams, *([">"] * len(streams))
    )
