"""One app's link to Redis in this process: what sends its calls, and answers for its handles."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from streamwork.broker.outgoing import Outgoing
from streamwork.broker.resend import ainsist, insist
from streamwork.broker.steps import Steps, aask, ask
from streamwork.broker.whereabouts import cancelling, where_is
from streamwork.broker.why import Reason, why
from streamwork.bulk import Bulk
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import Config
from streamwork.errors import BodyTooLarge, QueueFull, StoreError
from streamwork.guards import check_inside_task, refuse_on_loop
from streamwork.handle import Call, Handle
from streamwork.ids import new_task_id
from streamwork.links import Links
from streamwork.model.state import State
from streamwork.model.timing import NOW
from streamwork.origins import Origin, Origins
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.keys import queues
from streamwork.taken import taken, taken_all
from streamwork.waiting import Brief, Wait, why_late
from streamwork.wire.message import encode_message
from streamwork.wire.origin import stamped

R = TypeVar("R")
T = TypeVar("T")


class Connection(Links):
    """Implements the ports `Sending` and `Waiting` for one namespace."""

    def __init__(self, namespace: str, config: Config) -> None:
        super().__init__(namespace, config)
        self._configured()

    def configure(self, config: Config) -> None:
        """Go on with other settings; threads' connections are closed, the next use makes them anew."""
        self.close()
        self.config = config
        self._configured()

    def _configured(self) -> None:
        self._max_body = self.config.client.max_body_bytes
        self._origins = Origins(self.namespace, self.config.telemetry)

    @property
    def known_queues(self) -> frozenset[str]:
        """The queues that this process has sent to."""
        return frozenset(self._known_queues)

    def ask(self, steps: Steps[T]) -> T:
        """Ask Redis from a thread; raises StoreError."""
        return ask(self.driver, steps)

    async def aask(self, steps: Steps[T]) -> T:
        """Ask Redis from a loop; raises StoreError."""
        await self._begin_on_loop()
        return await aask(self._loop_side()[0], steps)

    def _outgoing(self, origin: Origin, call: Call[Any], task_id: str, client_id: str) -> Outgoing:
        options, when, limits = call.options, "", b""
        if headers := origin.headers(task_id):
            options = stamped(options, headers)
        if call.timing is not NOW:
            now_ms = SYSTEM_CLOCK.now_ms()
            when, expiry_ms = call.timing.when, call.timing.expiry_ms(now_ms)
            if expiry_ms is not None:
                options = msgspec.structs.replace(options, expires_at_ms=expiry_ms)
        if call.flow is not None:
            limits = call.flow.limits
            when = f"+{call.flow.delay_ms}" if call.flow.delay_ms else when
            if call.flow.begins:
                options = msgspec.structs.replace(options, begins=True)
        body = encode_message(task_id, call.task_name, call.args, call.kwargs, options, client_id)
        if len(body) > self._max_body:
            raise BodyTooLarge(call.task_name, len(body), self._max_body)
        return Outgoing(task_id, call.lane, body, when, limits)

    def send(self, call: Call[R]) -> Handle[R]:
        """Send one call; see `Task.enqueue` for what it raises."""
        refuse_on_loop("enqueue", "aenqueue")
        task_id = new_task_id()
        with self._origins.one(call.queue, call.task_name, task_id) as origin:
            message = self._outgoing(origin, call, task_id, self.results.client_id)
            (entry,) = self.sender.line().send(self.keys(call.queue), (message,), call.wait_s)
        if call.queue not in self._known_queues:
            self._announce({call.queue})
        handle = Handle(self, message.task_id, call.queue, message.lane, entry, call.read_result)
        if message.limits and (replaced := taken(handle, entry)):
            self._cancel_replaced([(call.queue, replaced)])
        return handle

    async def asend(self, call: Call[R]) -> Handle[R]:
        """Send one call from a loop, together with whatever else is being sent there."""
        task_id = new_task_id()
        with self._origins.one(call.queue, call.task_name, task_id) as origin:
            message = self._outgoing(origin, call, task_id, self.results.client_id)
            if self._endpoint is None:
                await self._begin_on_loop()
            driver, sender = self._loop_side()
            entry = await sender.send(self.keys(call.queue), message, call.wait_s)
        if call.queue not in self._known_queues:
            await self._aannounce(driver, {call.queue})
        handle = Handle(self, message.task_id, call.queue, message.lane, entry, call.read_result)
        if message.limits and (replaced := taken(handle, entry)):
            await self._acancel_replaced([(call.queue, replaced)])
        return handle

    def send_made(self, queue: str, chunk: Sequence[Outgoing]) -> list[str]:
        """Send messages that are made already, whole or from its begin on; returns an answer each, see `taken`.

        Raises what `Line.send` raises.
        """
        entries = self.sender.line().send(self.keys(queue), chunk)
        if queue not in self._known_queues:
            self._announce({queue})
        replaced = [entry.partition("~")[2] for entry in entries if "~" in entry]
        self._cancel_replaced([(queue, task_id) for task_id in replaced])
        return entries

    def _cancel_replaced(self, replaced: list[tuple[str, str]]) -> None:
        # They are marked as cancelled already; this ends at once what waits in due or in a line.
        with contextlib.suppress(StoreError):
            for one in replaced:
                ask(self.driver, self._cancelling(_replaced(self, *one), False))

    async def _acancel_replaced(self, replaced: list[tuple[str, str]]) -> None:
        with contextlib.suppress(StoreError):
            for one in replaced:
                await aask(self._loop_side()[0], self._cancelling(_replaced(self, *one), False))

    def _announce(self, names: set[str]) -> None:
        # Only `streamwork queues` reads this set, so a failure here is none of the enqueue; the next one repeats it.
        try:
            self.driver.run(plain("SADD", queues(self.namespace), *names))
        except StoreError:
            return
        self._known_queues |= names

    async def _aannounce(self, driver: AsyncDriver, names: set[str]) -> None:
        self._known_queues |= names  # before the answer, so that a thousand at once ask once
        try:
            await driver.run(plain("SADD", queues(self.namespace), *names))
        except StoreError:
            self._known_queues -= names

    def send_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> list[Handle[R]]:
        """Send calls in chunks per queue; order is kept within a lane."""
        refuse_on_loop("enqueue_many", "aenqueue_many")
        sent = 0
        with self._origins.many() as origin:
            bulk: Bulk[R] = self._bulk(origin)
            try:
                for handles, entries in self.sender.send_chunks(bulk.chunks(calls), wait_s):
                    self._cancel_replaced(taken_all(handles, entries, bulk.handles, sent))
                    sent += len(handles)
            except QueueFull as error:
                raise error.after(sent) from None
            finally:
                origin.sent(sent)
        if bulk.queues - self._known_queues:
            self._announce(bulk.queues)
        return bulk.handles

    def _bulk(self, origin: Origin) -> Bulk[Any]:
        return Bulk(self, self.keys, partial(self._outgoing, origin), self.results.client_id)

    async def asend_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> list[Handle[R]]:
        """Send calls from a loop, which stays responsive in between; after an error what was not begun is not sent."""
        await self._begin_on_loop()
        driver, sender = self._loop_side()
        count = 0
        with self._origins.many() as origin:
            bulk: Bulk[R] = self._bulk(origin)
            for keys, messages, handles in bulk.chunks(calls):
                sent = [sender.send(keys, message, wait_s) for message in messages]
                answers = await asyncio.gather(*sent, return_exceptions=True)
                entries = [answer for answer in answers if isinstance(answer, str)]
                origin.sent(count + len(entries))
                for answer in answers:
                    if isinstance(answer, QueueFull):
                        raise answer.after(count + len(entries))
                    if isinstance(answer, BaseException):
                        raise answer
                await self._acancel_replaced(taken_all(handles, entries, bulk.handles, count))
                count += len(entries)
        if bulk.queues - self._known_queues:
            await self._aannounce(driver, bulk.queues)
        return bulk.handles

    def wait(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Return the handle's result record, or None when the time is up."""
        refuse_on_loop("result", "aresult")
        check_inside_task(handle)
        wait = Wait(self.results, self.keys(handle.queue), handle, timeout_s, self._patience_s(timeout_s))
        return wait.here(self.driver)

    async def await_(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Return the handle's result record, or None when the time is up."""
        check_inside_task(handle)
        wait = Wait(self.results, self.keys(handle.queue), handle, timeout_s, self._patience_s(timeout_s))
        await self._begin_on_loop()
        return await wait.on_loop(lambda: self.driver, self._loop_side()[0])

    def why_late(self, handle: Handle[Any]) -> str:
        """Say where a task message is that did not end in the time given, and what it lacks; empty where Redis is away.

        Takes a second for each answer at most, since the caller's time is up.
        """
        try:
            return ask(Brief(self.driver), why_late(self.keys(handle.queue), handle))
        except StoreError:
            return ""

    async def awhy_late(self, handle: Handle[Any]) -> str:
        """Say where a task message is that did not end in the time given; as `why_late`, within a second."""
        try:
            async with asyncio.timeout(1.0):
                return await aask(self._loop_side()[0], why_late(self.keys(handle.queue), handle))
        except (StoreError, TimeoutError):
            return ""

    def _patience_s(self, timeout_s: float | None) -> float:
        patience_s = self.config.client.send_timeout_s
        return patience_s if timeout_s is None else min(patience_s, timeout_s)

    def _where(self, handle: Handle[Any]) -> Steps[State]:
        return where_is(self.keys(handle.queue), handle)

    def state(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        refuse_on_loop("state", "astate")
        return insist(lambda: ask(self.driver, self._where(handle)), self._patience_s(None))

    async def astate(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        await self._begin_on_loop()
        driver, _ = self._loop_side()
        return await ainsist(lambda: aask(driver, self._where(handle)), self._patience_s(None))

    def why(self, handle: Handle[Any]) -> list[Reason]:
        """Say why the task message is not running; see `Handle.why`."""
        refuse_on_loop("why", "awhy")
        return insist(lambda: self.ask(why([self.keys(handle.queue)], handle.id)), self._patience_s(None))

    async def awhy(self, handle: Handle[Any]) -> list[Reason]:
        """Say why the task message is not running; see `Handle.why`."""
        return await ainsist(lambda: self.aask(why([self.keys(handle.queue)], handle.id)), self._patience_s(None))

    def cancel(self, handle: Handle[Any], terminate: bool) -> str:
        """Ask that the task message does not run; see `Handle.cancel`."""
        refuse_on_loop("cancel", "acancel")
        return insist(lambda: ask(self.driver, self._cancelling(handle, terminate)), self._patience_s(None))

    async def acancel(self, handle: Handle[Any], terminate: bool) -> str:
        """Ask that the task message does not run; see `Handle.cancel`."""
        await self._begin_on_loop()
        driver, _ = self._loop_side()
        return await ainsist(lambda: aask(driver, self._cancelling(handle, terminate)), self._patience_s(None))

    def _cancelling(self, handle: Handle[Any], terminate: bool) -> Steps[str]:
        keep_ms = int(max(self.config.keep.result_s, 60) * 1000)
        return cancelling(self.keys(handle.queue), handle, self.results.client_id, keep_ms, terminate=terminate)


def _replaced(connection: Connection, queue: str, task_id: str) -> Handle[Any]:
    return Handle(connection, task_id, queue, "", "", bytes)
