"""What goes on, but not as it should: a Redis near its limits, groups on their way back, workers that do not claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from streamwork.broker.checkup import Check, connections, durability, room
from streamwork.broker.info import info
from streamwork.broker.pausing import paused_checks
from streamwork.broker.stats import Overview, QueueStats, WorkerStats
from streamwork.broker.steps import Steps
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import DecodeError
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import decode_attempt, decode_message

# A worker that waits for work has an answer every 2 s (worker.block_s), and says so every fourth beat.
_DEAF_MS = 30_000
# Any live worker of a queue sends on what is due within milliseconds.
_LATE_MS = 3_000
# How many of what is due next are looked at for tasks that nobody knows.
_LOOKED_AT = 200


def degraded(namespace: str, seen: Overview) -> Steps[list[Check]]:
    """Find what is not as it should be; nothing where all is well. Verdicts are `note`, `warning` or `failure`."""
    persistence, memory, clients = yield [info("persistence"), info("memory"), info("clients")]
    server = [durability(persistence, is_embedded=False), room(memory), connections(clients)]
    # A server without an append-only file is no state that passes: doctor tells of it.
    found = [check for check in server if check.verdict != "ok" and persistence.get("loading") != "1"]
    found = [check for check in found if check.verdict == "failure" or check.name != "persistence"]
    found = [check for check in found if check.verdict != "note"]
    alive = {worker.consumer for worker in seen.workers if worker.alive}
    for queue in seen.queues:
        found += yield from _queue(QueueKeys(namespace, queue.queue), queue, alive)
    return [*found, *(yield from paused_checks(namespace, seen.queues)), *_workers(seen.workers)]


def _queue(keys: QueueKeys, queue: QueueStats, alive: set[str]) -> Steps[list[Check]]:
    grace, restoring, due = yield [
        plain("PTTL", keys.grace), plain("HKEYS", keys.restoring), plain("ZRANGE", keys.due, 0, _LOOKED_AT - 1),
    ]  # fmt: skip
    found: list[Check] = []
    deleted = [lane.lost for lane in queue.lanes if lane.lost]
    if deleted:
        what = f"queue {queue.queue}: {len(deleted)} lane(s) were deleted, with {sum(deleted):,} task messages on them"
        found.append(Check("data", "failure", what, "a worker makes them anew, empty; see who deleted them"))
    lost = [lane.lane for lane in queue.lanes if not lane.has_group and lane.waiting + lane.running]
    if lost:
        what = f"queue {queue.queue}: the consumer group of {len(lost)} lane(s) was destroyed; no task message is lost"
        found.append(Check("data", "failure", what, "a worker that reads them makes it anew; see who destroyed it"))
    if restoring:
        what = (
            f"queue {queue.queue}: a consumer group was destroyed; what was unsettled in {len(restoring)} lane(s) is "
            "coming back, and nothing is lost"
        )
        found.append(Check("data", "warning", what, "wait, with a live worker; see who destroyed it"))
    if grace > 0 and any(name not in alive for name in queue.in_hand):
        what = f"queue {queue.queue}: no dead worker's work is taken over for {grace / 1000:.1f} s more"
        found.append(Check("grace", "note", what, "wait: nobody had looked for the dead, so all may just seem so"))
    late_ms = SYSTEM_CLOCK.now_ms() - (queue.next_at_ms or 0)
    if queue.next_at_ms and late_ms > _LATE_MS:
        what = f"queue {queue.queue}: what is scheduled has been due for {late_ms // 1000:,} s, and nobody sends it on"
        found.append(Check("due", "warning", what, "start a worker that reads the queue"))
    return [*found, *(yield from _unknown(keys, due))]


def _unknown(keys: QueueKeys, due: Sequence[bytes]) -> Steps[list[Check]]:
    if not due:
        return []
    (records,) = yield [plain("HMGET", keys.due_body, *due)]
    names: Counter[str] = Counter()
    for record in records:
        try:
            _, past, body = (record or b"").split(b"\n", 2)
            if decode_attempt(past).deferrals:
                names[decode_message(body).task] += 1
        except (ValueError, DecodeError):
            continue  # another version's, or a stranger's
    most = "at least " if len(due) == _LOOKED_AT else ""
    return [
        Check(
            "unknown",
            "warning",
            f"{most}{count:,} of task {name} wait in queue {keys.queue}: no worker that was offered them knows it",
            "start a worker whose app declares it; a day after they were first offered they are dead letters",
        )
        for name, count in sorted(names.items())
    ]


def _workers(workers: Sequence[WorkerStats]) -> list[Check]:
    now_ms = SYSTEM_CLOCK.now_ms()
    found = []
    for worker in workers:
        if not worker.alive and worker.in_hand:
            what = f"worker {worker.name} gives no sign of life and holds {worker.in_hand:,}"
            found.append(
                Check("workers", "warning", what, "any live worker of the queue takes them over within seconds")
            )
        elif worker.alive and worker.claimed_at_ms and now_ms - worker.claimed_at_ms > _DEAF_MS:
            since_s = (now_ms - worker.claimed_at_ms) // 1000
            what = f"worker {worker.name} is alive and has claimed no work for {since_s:,} s (process {worker.pid})"
            found.append(Check("workers", "warning", what, "see its log: it is stopped, or its connection hangs"))
    return found
