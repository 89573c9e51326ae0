"""Wait for one result: told by the listener, and ended where nobody could tell any more."""

from __future__ import annotations

import asyncio
import math
import queue
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from streamwork.broker.coverage import Unserved, unserved
from streamwork.broker.pausing import paused
from streamwork.broker.resend import ainsist, insist
from streamwork.broker.results import CLOSED, Results
from streamwork.broker.steps import Steps, aask, ask
from streamwork.broker.whereabouts import where_is
from streamwork.broker.why import why
from streamwork.errors import DecodeError, StoreError, StoreUnavailable
from streamwork.handle import Handle
from streamwork.model.flow import group_of
from streamwork.model.pausing import QUEUE, is_held
from streamwork.model.state import State
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import Command, plain
from streamwork.store.keys import QueueKeys
from streamwork.store.sync_driver import SyncDriver
from streamwork.wire.message import FIRST_ATTEMPT, decode_attempt

# A result that is not kept leaves nothing behind that a late wait could hear of. So a wait asks every few seconds where
# its message is, as long as there are not so many waits that it would be felt; twice, since a message on its way from
# lane to due may be seen in neither.
_ASK_S, _MOST_ASKING = 2.0, 100
_GONE = b"\nunknown\n"
# Any live worker of a queue sends on what is due within milliseconds.
_OVERDUE_S = 3


def arrival(
    arrived: queue.SimpleQueue[bytes], give_up_s: float | None, state: Callable[[], State], waiting: Callable[[], int]
) -> bytes | None:
    """Return the record that arrives, one that says "ended, nothing kept", or None when the (monotonic) time is up."""
    while True:
        pause_s, is_last = _pause(give_up_s, time.monotonic())
        try:
            return arrived.get(timeout=pause_s)
        except queue.Empty:
            if is_last:
                return None
        try:
            if waiting() <= _MOST_ASKING and state() == State.UNKNOWN and state() == State.UNKNOWN:
                arrived.put(_GONE)  # behind what has arrived meanwhile
        except StoreError:
            pass  # what arrives once Redis is back counts


async def aarrival(
    arrived: asyncio.Future[bytes],
    give_up_s: float | None,
    state: Callable[[], Awaitable[State]],
    waiting: Callable[[], int],
) -> bytes | None:
    """Return what `arrival` does; `give_up_s` is the loop's time."""
    now = asyncio.get_running_loop().time
    while True:
        pause_s, is_last = _pause(give_up_s, now())
        await asyncio.wait({arrived}, timeout=pause_s)
        if arrived.done():
            return arrived.result()
        if is_last:
            return None
        try:
            if waiting() <= _MOST_ASKING and await state() == State.UNKNOWN and await state() == State.UNKNOWN:
                return arrived.result() if arrived.done() else _GONE
        except StoreError:
            pass  # what arrives once Redis is back counts


def _pause(give_up_s: float | None, now_s: float) -> tuple[float, bool]:
    left_s = math.inf if give_up_s is None else max(0.0, give_up_s - now_s)
    return min(left_s, _ASK_S), left_s <= _ASK_S


class Wait:
    """One waiter's look at the result key and its place on the listener's list.

    Args:
        results: The process's waiting side.
        keys: The queue.
        handle: What is waited for.
        timeout_s: How long; None = as long as it takes.
        patience_s: How long a Redis that is away is put up with before the wait begins.
    """

    def __init__(
        self, results: Results, keys: QueueKeys, handle: Handle[Any], timeout_s: float | None, patience_s: float
    ) -> None:
        self._results = results
        self._keys = keys
        self._id = handle.id
        self._handle = handle
        self._timeout_s = timeout_s
        self._patience_s = patience_s

    def _where(self) -> Steps[State]:
        return where_is(self._keys, self._handle)

    def _answer(self, record: bytes | None) -> bytes | None:
        if record == CLOSED:
            raise StoreUnavailable(f"the app was closed while task message {self._id} was waited for; it goes on")
        return record

    def here(self, driver: SyncDriver) -> bytes | None:
        """Return the result record, or None when the time is up; blocks this thread.

        Raises:
            StoreUnavailable: Redis is away, or this side was closed.
        """
        results, keys = self._results, self._keys
        give_up_s = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        insist(lambda: results.watch(driver, keys), self._patience_s)
        arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        results.wait(keys, self._id, arrived.put)
        try:
            if arrived.empty():
                record = insist(lambda: driver.run(plain("GET", keys.result(self._id))), self._patience_s)
                if record is not None:
                    results.ended(self._id, record)
            return self._answer(arrival(arrived, give_up_s, lambda: ask(driver, self._where()), results.count))
        finally:
            results.forget(self._id, arrived.put)

    async def on_loop(self, blocking: Callable[[], SyncDriver], driver: AsyncDriver) -> bytes | None:
        """Return the result record, or None when the time is up; `blocking` is used in a thread, once per queue."""
        results, keys = self._results, self._keys
        loop = asyncio.get_running_loop()
        give_up_s = None if self._timeout_s is None else loop.time() + self._timeout_s
        if not results.is_watched(keys):
            await asyncio.to_thread(lambda: insist(lambda: results.watch(blocking(), keys), self._patience_s))
        arrived: asyncio.Future[bytes] = loop.create_future()

        def waiter(record: bytes) -> None:
            loop.call_soon_threadsafe(lambda: None if arrived.done() else arrived.set_result(record))

        async def state() -> State:
            return await aask(driver, self._where())

        results.wait(keys, self._id, waiter)
        try:
            if not arrived.done():
                look = plain("GET", keys.result(self._id))
                record = await ainsist(lambda: driver.run(look), self._patience_s)
                if record is not None:
                    results.ended(self._id, record)
            return self._answer(await aarrival(arrived, give_up_s, state, results.count))
        finally:
            results.forget(self._id, waiter)


class Brief:
    """A driver as `ask` uses it, for a look that nobody is to wait for long: each answer has a second."""

    def __init__(self, driver: SyncDriver) -> None:
        self._driver = driver

    def run_all(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send commands one after another."""
        return [self._driver.run(command, 1.0) for command in commands]


def why_late(keys: QueueKeys, handle: Handle[Any]) -> Steps[str]:
    """Say where a task message is that did not end in time, and whether anybody alive would take it."""
    state = yield from where_is(keys, handle)
    if state in (State.WAITING, State.CANCELLING):
        missing = yield from unserved([(keys, handle.lane)])
        if state == State.CANCELLING:
            rest = f"; {missing[0].text}: start one with {missing[0].remedy}" if missing else ""
            return f"it is cancelled, and a worker has yet to drop it, or to end its run{rest}"
        unserved_text = f"{missing[0].text}: start one with {missing[0].remedy}" if missing else ""
        stops = yield from _pauses_before(keys, handle.id)
        if stops:
            return "it waits: " + "; ".join([*stops, unserved_text] if missing else stops)
        (in_line,) = yield [plain("HEXISTS", keys.parked_body, handle.id)]
        if in_line:
            return "; ".join(reason.text for reason in (yield from why([keys], handle.id)))
        return f"it waits, and {unserved_text}" if missing else "it waits for a free slot"
    if state == State.SCHEDULED:
        return (yield from _why_scheduled(keys, handle.id))
    return "it is running, and goes on" if state == State.RUNNING else ""


def _pauses_before(keys: QueueKeys, task_id: str) -> Steps[list[str]]:
    """Say which pauses of its queue, and of its group where it waits in a line, keep a waiting message back."""
    found = yield from paused(keys.namespace, [keys.queue])
    if not found:
        return []
    parked, record = yield [plain("HEXISTS", keys.parked_body, task_id), plain("HGET", keys.flow, task_id)]
    group = group_of(record) if parked else ""
    stops = [each for each in found if each.mark == QUEUE or (group and each.line == group)]
    return [f"{each.text}, until `{each.remedy}`" for each in stops]


def _why_scheduled(keys: QueueKeys, task_id: str) -> Steps[str]:
    score, record, (now_s, _) = yield [
        plain("ZSCORE", keys.due, task_id), plain("HGET", keys.due_body, task_id), plain("TIME")
    ]  # fmt: skip
    if score is None:
        return "it was scheduled until a moment ago, and is about to run"
    if is_held(float(score)):
        return "it is set aside until its task is resumed: `streamwork status` shows what is paused"
    at_s = float(score) / 1000
    when = f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if int(now_s) - at_s > _OVERDUE_S:
        return f"it was due at {when}, and nobody sends it on: start a worker with {Unserved(keys.queue, []).remedy}"
    try:
        past = decode_attempt((record or b"").split(b"\n", 2)[1])
    except (IndexError, DecodeError):
        past = FIRST_ATTEMPT  # another version's record
    if past.deferrals:
        return f"no worker that was offered it knows the task; it is due at {when}, to be offered again"
    return f"it is due at {when}" + (f", for run {past.attempt}" if past.attempt > 1 else "")
