"""One delivery in a worker process, from the read to its settled end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from streamwork.context import Context
from streamwork.model.pausing import QUEUE, TASK
from streamwork.store.keys import QueueKeys
from streamwork.task import Task
from streamwork.wire.message import FIRST_ATTEMPT, Attempt, TaskMessage

if TYPE_CHECKING:
    from streamwork.telemetry.tracing import Processing


class QueueSide:
    """A queue as one process sees it.

    Attributes:
        keys: Its keys.
        number: Its place in the worker's list, for the slot table.
        lanes: The lanes this worker reads, highest first.
        returned: Lanes that may hold entries to adopt.
        cancelled: Ids marked as cancelled.
        is_paused: Nothing is to be read from it.
        paused_tasks: Names of tasks that are not to be begun.
    """

    __slots__ = (
        "cancelled", "is_paused", "keys", "lanes", "name", "number", "paused_tasks", "returned", "streams",
    )  # fmt: skip

    def __init__(self, keys: QueueKeys, number: int) -> None:
        self.keys = keys
        self.name = keys.queue
        self.number = number
        self.lanes: list[LaneSide] = []
        self.streams: dict[bytes, LaneSide] = {}
        self.returned: set[str] = set()
        self.cancelled: set[str] = set()
        self.is_paused = False
        self.paused_tasks: frozenset[str] = frozenset()

    def set_lanes(self, lanes: list[str]) -> None:
        """Take over a new list of lanes, highest first; facts of known ones are kept."""
        known = {lane.name: lane for lane in self.lanes}
        self.lanes = [known.get(name) or LaneSide(self, name) for name in lanes]
        self.streams = {lane.stream.encode(): lane for lane in self.lanes}

    def set_paused(self, marks: list[str]) -> None:
        """Take over what of the queue is paused."""
        self.is_paused = QUEUE in marks
        self.paused_tasks = frozenset(mark.removeprefix(TASK) for mark in marks if mark.startswith(TASK))


class LaneSide:
    """A lane as one process sees it.

    Attributes:
        looked_at_ms: When it was last read, for the starvation bound.
        is_foreign: Something that is no stream stands under its name: it is left alone until that is gone.
    """

    __slots__ = ("is_foreign", "level", "looked_at_ms", "name", "name_bytes", "queue", "stream")

    def __init__(self, queue: QueueSide, name: str) -> None:
        self.queue = queue
        self.name = name
        self.name_bytes = name.encode()
        self.level = int(name.partition(":")[0])
        self.stream = queue.keys.lane(name)
        self.looked_at_ms = 0
        self.is_foreign = False


class Run:
    """One delivery and what became of it so far.

    Attributes:
        lane: Where it was read.
        entry: Entry id.
        count: Delivery count, for fencing.
        consumer: Who it was delivered to.
        server: Run id of the server that delivered it.
        fields: The entry's fields.
        attempt: Its past.
        is_suspect: A process died or vanished while it ran; it runs alone once its next crash would be its last.
        was_moved: It was promoted from due at least once.
        message, task, context: Set while it is decoded, admitted and started.
        slot: Its slot, -1 before the start.
        started_at_ms: When the body began; 0 = not yet.
        is_unsettled: Its end could not be written down at all.
        is_over: The body's end was taken, or given up: whatever comes later is ignored.
        stop_reason: Why its body was stopped, or its process died: ``timeout``, ``cancelled``, ``released``, ….
        timer, soft_timer: Of its limits.
        limit_from_s, limit_at_s: When its time began and its hard limit is, monotonic; 0 = it has none.
        is_soft_due: Its next cancellation means the soft limit.
        is_interrupted: Something was raised in its thread from outside.
        thread: The thread that its body runs in and may be interrupted in; 0 = none.
        span: Of its body, in a trace; None = it is in none.
        outcome, ended_at_ms: How and when it ended, as the journal says; empty and 0 = not yet.
    """

    __slots__ = (
        "asyncio_task", "attempt", "consumer", "context", "count", "ended_at_ms", "entry", "fields", "is_interrupted",
        "is_over", "is_soft_due", "is_suspect", "is_unsettled", "lane", "limit_at_s", "limit_from_s", "message",
        "outcome", "server", "slot", "soft_timer", "span", "started_at_ms", "stop_reason", "task", "thread", "timer",
        "was_moved",
    )  # fmt: skip

    def __init__(self, lane: LaneSide, entry: bytes, fields: list[bytes], consumer: str, server: str) -> None:
        self.lane = lane
        self.entry = entry
        self.fields = fields
        self.consumer = consumer
        self.server = server
        self.count = 1
        self.attempt: Attempt = FIRST_ATTEMPT
        self.is_suspect = self.is_unsettled = False
        self.was_moved = False
        self.message: TaskMessage | None = None
        self.task: Task[..., Any] | None = None
        self.context: Context[Any] | None = None
        self.slot = -1
        self.started_at_ms = 0
        self.is_over = False
        self.stop_reason = ""
        self.asyncio_task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.soft_timer: asyncio.TimerHandle | None = None
        self.limit_at_s = self.limit_from_s = 0.0
        self.is_soft_due = self.is_interrupted = False
        self.thread = 0
        self.span: Processing | None = None
        self.outcome, self.ended_at_ms = "", 0

    @property
    def token(self) -> str:
        """What tells this delivery from every other one (rule 23)."""
        return f"{self.consumer}/{self.entry.decode()}/{self.count}"

    def __repr__(self) -> str:
        return f"Run({self.lane.stream} {self.entry.decode()} count={self.count})"
