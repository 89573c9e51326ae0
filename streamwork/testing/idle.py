"""Run everything that waits, in this process, and come back when nothing is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from streamwork.app import Streamwork
from streamwork.broker.inspect import order
from streamwork.broker.stats import last_delivered, queue_names
from streamwork.broker.steps import ask
from streamwork.clock import SYSTEM_CLOCK, Clock
from streamwork.errors import DecodeError, StreamworkError, TaskFailed
from streamwork.guards import refuse_on_loop
from streamwork.inline import InlineSending
from streamwork.model.lane import lane_tags
from streamwork.model.state import State
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.keys import GROUP, QueueKeys
from streamwork.store.looking import look
from streamwork.store.scripts import SettleItem
from streamwork.testing import private
from streamwork.wire.message import decode_failure, decode_message, decode_result
from streamwork.worker.delivery import Run
from streamwork.worker.embedded import EmbeddedWorker

# One look costs four small commands a queue; the worker itself does not wait for the looks.
_POLL_S = 0.004
# After giving up, a body that does not end must not hold the tests up for the 30 s of production.
_SETTINGS: Mapping[str, Any] = {"worker.drain_timeout_s": 2.0}


class Drained(NamedTuple):
    """How many deliveries ended how; a task message that is retried counts there once for each retry."""

    succeeded: int = 0
    retried: int = 0
    skipped: int = 0
    cancelled: int = 0
    dead: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        """All deliveries."""
        return sum(self)


_FIELD_OF_OP = {"S": "succeeded", "R": "retried", "K": "skipped", "C": "cancelled", "D": "dead", "E": "expired"}


def run_until_idle(
    app: Streamwork, *, raise_failures: bool = True, within_s: float = 60.0, clock: Clock | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Drained:  # fmt: skip
    """Run what waits in an app's queues, and what that enqueues, until nothing is left.

    Its queues are those of its tasks and all that something was sent to under its name, unless ``worker.queues`` says
    otherwise. A real worker runs on a loop of its own in this process: reading, retries and outcomes are those of
    production, and the tasks' tags are all offered. Delays are not waited for: what is due later, such as a retry, is
    made due at once, in its order. Messages for tasks that this app does not declare are left in place. Tasks with
    ``executor="process"`` run in processes. Within ``app.inline()`` all has run already: this does nothing.

    Args:
        app: The app.
        raise_failures: Raise when a task message ended dead; what was in the queues has all run by then.
        within_s: Seconds, > 0, before this gives up.
        clock: Only what is due by this clock runs, the rest stays; None = everything is due.
        settings: Of the worker, by dotted name.

    Returns:
        How many deliveries ended how.

    Raises:
        TaskFailed: The first task message that ended dead.
        AssertionError: Not idle in time; the message says what is left. It stays in its queue.
        NotPrivate: Under pytest, the app is on its own Redis; see `streamwork.testing.allow`.
        UseAsync: Called on an event loop's thread.
    """
    refuse_on_loop("run_until_idle", "arun_until_idle")

    async def drain() -> Drained:
        try:
            return await arun_until_idle(
                app, raise_failures=raise_failures, within_s=within_s, clock=clock, settings=settings
            )
        finally:
            await app.connection.aclose()  # what the bodies sent from this loop

    return asyncio.run(drain())


async def arun_until_idle(
    app: Streamwork, *, raise_failures: bool = True, within_s: float = 60.0, clock: Clock | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Drained:  # fmt: skip
    """Run on this loop what waits in an app's queues until nothing is left; as `run_until_idle`."""
    if isinstance(app.sending.now, InlineSending):
        return Drained()
    private.check(app.connection)
    tags = sorted({tag for task in app.tasks.values() for tag in task.tags})
    drain = _Drain(app, clock)
    give_up_at_s = time.monotonic() + within_s
    done: set[str] = set()
    while not done >= (queues := await asyncio.to_thread(_queues, app, settings or {})):
        merged = {**_SETTINGS, "worker.tags": tags, **(settings or {}), "worker.queues": sorted(queues)}
        drain.worker = EmbeddedWorker(app, merged, drain.settled, clock or SYSTEM_CLOCK)
        async with drain.worker:
            await drain.until_idle(give_up_at_s, within_s)
        done = queues  # what ran may have sent to a queue that nobody knew of
    if raise_failures and drain.failure is not None:
        raise drain.failure
    return Drained(**drain.counts)


def _queues(app: Streamwork, settings: Mapping[str, Any]) -> set[str]:
    chosen = settings.get("worker.queues") or app.config.worker.queues
    if chosen:
        return set(chosen)
    connection = app.connection
    return set(ask(connection.driver, queue_names(connection.namespace, connection.known_queues.union(app.queues))))


class _Drain:
    """One run until idle: what came of the deliveries, and the look whether anything is left."""

    worker: EmbeddedWorker

    def __init__(self, app: Streamwork, clock: Clock | None) -> None:
        self._app = app
        self._clock = clock
        self._looks: dict[str, tuple[Any, int]] = {}
        self.counts: dict[str, int] = {}
        self.failure: TaskFailed | None = None

    def settled(self, run: Run, item: SettleItem, committed: bool) -> None:
        """Count an outcome and keep the first failure."""
        if not committed:
            return
        field = _FIELD_OF_OP[item.op[0]]
        self.counts[field] = self.counts.get(field, 0) + 1
        if field == "dead" and self.failure is None:
            result = decode_result(_bytes(item.rest[0]))
            failure = decode_failure(result.payload)
            task_id = run.message.id if run.message is not None else item.result_key.rpartition(":")[2]
            self.failure = TaskFailed(task_id, State.DEAD, failure.type_name, failure.message, failure.traceback)

    async def until_idle(self, give_up_at_s: float, within_s: float) -> None:
        """Wait until nothing is left, making due what is not."""
        worker, keys = self.worker.worker, [self._app.connection.keys(name) for name in self.worker.worker.queues]
        while True:
            left = [await self._left_in(worker.driver, queue) for queue in keys]
            if worker.is_idle and not any(left):
                return
            if self.worker.failed:
                await self.worker.ended()
            if time.monotonic() > give_up_at_s:
                facts = "; ".join(f"{queue.queue}: {what}" for queue, what in zip(keys, left, strict=True) if what)
                raise AssertionError(f"not idle within {within_s:g} s: {facts or f'{worker.in_hand} running'}")
            await asyncio.sleep(_POLL_S)

    async def _left_in(self, driver: AsyncDriver, keys: QueueKeys) -> str:
        # At one instant: a message on its way between lane and due would else be seen in neither.
        lanes, added, settled, due = await driver.run(look([
            plain("HKEYS", keys.lanes), plain("HGETALL", keys.added), plain("HGETALL", keys.settled),
            plain("ZRANGE", keys.due, 0, -1, "WITHSCORES"),
        ]))  # fmt: skip
        self._offer({tag for lane in lanes for tag in lane_tags(lane.decode())})
        done = dict(zip(settled[::2], map(int, settled[1::2]), strict=True))
        counts = zip(added[::2], map(int, added[1::2]), strict=True)
        unsettled = sum(max(0, count - done.get(lane, 0)) for lane, count in counts)
        if unsettled and self.worker.worker.is_idle:
            # The counters of a lane whose stream was deleted never meet. Nothing moved between two equal looks at them,
            # so what the streams said in between is true.
            before = self._looks.get(keys.queue)
            self._looks[keys.queue] = ((added, settled), await self._held(driver, keys, lanes))
            unsettled = 0 if before == ((added, settled), 0) else unsettled
        promoted = await self._make_due(driver, keys, dict(zip(due[::2], map(float, due[1::2]), strict=True)))
        return f"{unsettled} on its lanes, {promoted} due" if unsettled or promoted else ""

    async def _held(self, driver: AsyncDriver, keys: QueueKeys, lanes: list[bytes]) -> int:
        """Count the lanes that have entries which nobody has read or settled."""
        held = 0
        for lane in lanes:
            stream = keys.lane(lane.decode())
            (pending, *_), groups, newest = await driver.run_all([
                plain("XPENDING", stream, GROUP, if_gone=[0]), plain("XINFO", "GROUPS", stream, if_gone=[]),
                plain("XREVRANGE", stream, "+", "-", "COUNT", 1),
            ])  # fmt: skip
            is_unread = bool(newest) and order(newest[0][0]) > order(last_delivered(groups).encode())
            held += bool(pending) or is_unread
        return held

    def _offer(self, tags: set[str]) -> None:
        worker = self.worker.worker
        if not tags <= worker.tags:
            worker.tags |= tags
            self.worker.tell()

    async def _make_due(self, driver: AsyncDriver, keys: QueueKeys, due: dict[bytes, float]) -> int:
        """Move the run-at of what may run into the past, in its order; answers how many those are."""
        if not due:
            return 0
        by_ms = None if self._clock is None else self._clock.now_ms()
        chosen = [task_id for task_id, at_ms in due.items() if by_ms is None or at_ms <= by_ms]
        bodies = await driver.run(plain("HMGET", keys.due_body, *chosen)) if chosen else []
        known = [task_id for task_id, stored in zip(chosen, bodies, strict=True) if self._is_known(stored)]
        # Scores 1, 2, …: XX, since a promoter may have moved it to its lane in the meantime.
        moves = [(place, task_id) for place, task_id in enumerate(known, 1) if due[task_id] != place]
        if moves:
            await driver.run(plain("ZADD", keys.due, "XX", *(part for move in moves for part in move)))
            self.worker.promote(keys.queue)
        return len(known) + bodies.count(None)  # without a body it has just been promoted: it is not done

    def _is_known(self, stored: bytes | None) -> bool:
        try:
            return stored is not None and decode_message(stored.split(b"\n", 2)[2]).task in self._app.tasks
        except (DecodeError, IndexError):
            return False


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise StreamworkError(f"a result record was expected, not {type(value).__name__}")
    return value
