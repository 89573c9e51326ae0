"""One app's link to Redis in this process: drivers, senders and the listener, each made when first needed."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Iterable
from typing import Any, TypeVar

from streamwork.broker import inspect
from streamwork.broker.async_sender import AsyncSender
from streamwork.broker.outgoing import CHUNK_MESSAGES, Outgoing
from streamwork.broker.resend import ainsist, insist
from streamwork.broker.results import Results
from streamwork.broker.steps import Steps, aask, ask
from streamwork.broker.sync_sender import SyncSender
from streamwork.bulk import Bulk
from streamwork.config import Config
from streamwork.errors import BodyTooLarge, StoreError
from streamwork.guards import check_inside_task, refuse_on_loop
from streamwork.handle import Call, Handle
from streamwork.ids import new_task_id
from streamwork.model.state import State
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import Command, plain
from streamwork.store.embedded import join_configured
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys, queues
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.waiting import Wait
from streamwork.wire.message import Failure, encode_message, encode_record, encode_result

R = TypeVar("R")


class Connection:
    """Implements the ports `Sending` and `Waiting` for one namespace.

    Everything that holds a socket belongs to one process and is made anew after a fork (rules 2, 37).
    """

    def __init__(self, namespace: str, config: Config) -> None:
        self.namespace = namespace
        self.config = config
        self._max_body = config.client.max_body_bytes
        self._lock = threading.Lock()
        self._keys: dict[str, QueueKeys] = {}
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._endpoint: Endpoint | None = None
        self._embedded: Any = None
        self._driver: SyncDriver | None = None
        self._sender: SyncSender | None = None
        self._results: Results | None = None
        self._known_queues: set[str] = set()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncDriver, AsyncSender]] = (
            weakref.WeakKeyDictionary()
        )

    def configure(self, config: Config) -> None:
        """Go on with other settings; threads' connections are closed, the next use makes them anew."""
        self.close()
        self.config = config
        self._max_body = config.client.max_body_bytes

    def keys(self, queue: str) -> QueueKeys:
        """Return a queue's keys."""
        keys = self._keys.get(queue)
        if keys is None:
            keys = self._keys[queue] = QueueKeys(self.namespace, queue)
        return keys

    @property
    def endpoint(self) -> Endpoint:
        """Where Redis is; joins the embedded server at first use when no URL is set."""
        if self._pid != os.getpid():
            self._reset()
        if self._endpoint is None:
            with self._lock:
                if self._endpoint is None:
                    self._endpoint = Endpoint(
                        self.config.url or self._join_embedded(), self.config.client.connect_timeout_s
                    )
        return self._endpoint

    def _join_embedded(self) -> str:
        self._embedded = join_configured(self.config)
        atexit.register(self._embedded.close)
        return str(self._embedded.url)

    def another_driver(self) -> SyncDriver:
        """Return a driver of its own, for whoever blocks."""
        return SyncDriver(self.endpoint, ALL_SCRIPTS, self.config.client.deadline_s)

    @property
    def driver(self) -> SyncDriver:
        """This process's driver for threads."""
        endpoint = self.endpoint
        if self._driver is None:
            with self._lock:
                if self._driver is None:
                    self._driver = SyncDriver(endpoint, ALL_SCRIPTS, self.config.client.deadline_s)
        return self._driver

    @property
    def sender(self) -> SyncSender:
        """This process's sender for threads."""
        driver = self.driver
        if self._sender is None:
            with self._lock:
                if self._sender is None:
                    self._sender = SyncSender(driver, self.another_driver, self.config.client)
        return self._sender

    @property
    def results(self) -> Results:
        """This process's waiting side."""
        if self._pid != os.getpid():
            self._reset()
        if self._results is None:
            with self._lock:
                if self._results is None:
                    self._results = Results(self.another_driver)
        return self._results

    def _loop_side(self) -> tuple[AsyncDriver, AsyncSender]:
        endpoint = self.endpoint
        loop = asyncio.get_running_loop()
        side = self._loops.get(loop)
        if side is None:
            driver = AsyncDriver(endpoint, ALL_SCRIPTS, self.config.client.deadline_s)
            side = self._loops[loop] = (driver, AsyncSender(driver, self.config.client))
        return side

    @property
    def async_driver(self) -> AsyncDriver:
        """The running loop's driver."""
        return self._loop_side()[0]

    def _outgoing(self, call: Call[Any], task_id: str, client_id: str) -> Outgoing:
        body = encode_message(task_id, call.task_name, call.args, call.kwargs, call.options, client_id)
        if len(body) > self._max_body:
            raise BodyTooLarge(call.task_name, len(body), self._max_body)
        return Outgoing(task_id, call.lane, body)

    def send(self, call: Call[R]) -> Handle[R]:
        """Send one call; see `Task.enqueue` for what it raises."""
        refuse_on_loop("enqueue", "aenqueue")
        message = self._outgoing(call, new_task_id(), self.results.client_id)
        (entry,) = self.sender.line().send(self.keys(call.queue), (message,))
        if call.queue not in self._known_queues:
            self._announce({call.queue})
        return Handle(self, message.task_id, call.queue, message.lane, entry, call.read_result)

    async def asend(self, call: Call[R]) -> Handle[R]:
        """Send one call from a loop, together with whatever else is being sent there."""
        message = self._outgoing(call, new_task_id(), self.results.client_id)
        driver, sender = self._loop_side()
        entry = await sender.send(self.keys(call.queue), message)
        if call.queue not in self._known_queues:
            self._known_queues.add(call.queue)
            try:
                await driver.run(plain("SADD", queues(self.namespace), call.queue))
            except StoreError:
                self._known_queues.discard(call.queue)
        return Handle(self, message.task_id, call.queue, message.lane, entry, call.read_result)

    def _announce(self, names: set[str]) -> None:
        # Only `streamwork queues` reads this set, so a failure here is none of the enqueue; the next one repeats it.
        try:
            self.driver.run(plain("SADD", queues(self.namespace), *names))
        except StoreError:
            return
        self._known_queues |= names

    def send_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Send calls in chunks per queue; order is kept within a lane."""
        refuse_on_loop("enqueue_many", "aenqueue_many")
        bulk: Bulk[R] = Bulk(self, self.keys, self._outgoing, self.results.client_id)
        for handles, entries in self.sender.send_chunks(bulk.chunks(calls)):
            for handle, entry in zip(handles, entries, strict=True):
                handle.entry = entry
        if bulk.queues - self._known_queues:
            self._announce(bulk.queues)
        return bulk.handles

    async def asend_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Send calls from a loop, which stays responsive in between."""
        handles: list[Handle[R]] = []
        batch: list[Call[R]] = []
        for call in calls:
            batch.append(call)
            if len(batch) == CHUNK_MESSAGES:
                handles += await asyncio.gather(*map(self.asend, batch))
                batch = []
        return handles + await asyncio.gather(*map(self.asend, batch))

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
        return await wait.on_loop(lambda: self.driver, self.async_driver)

    def _patience_s(self, timeout_s: float | None) -> float:
        patience_s = self.config.client.send_timeout_s
        return patience_s if timeout_s is None else min(patience_s, timeout_s)

    def _where(self, handle: Handle[Any]) -> Steps[State]:
        return inspect.where_is(self.keys(handle.queue), handle.id, handle.lane, handle.entry)

    def state(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        refuse_on_loop("state", "astate")
        return insist(lambda: ask(self.driver, self._where(handle)), self._patience_s(None))

    async def astate(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        driver = self.async_driver
        return await ainsist(lambda: aask(driver, self._where(handle)), self._patience_s(None))

    def cancel(self, handle: Handle[Any]) -> str:
        """Ask that the task message does not run; see `Handle.cancel`."""
        refuse_on_loop("cancel", "acancel")
        return insist(lambda: self.driver.run(self._cancel_command(handle)), self._patience_s(None))

    async def acancel(self, handle: Handle[Any]) -> str:
        """Ask that the task message does not run; see `Handle.cancel`."""
        driver = self.async_driver
        return await ainsist(lambda: driver.run(self._cancel_command(handle)), self._patience_s(None))

    def _cancel_command(self, handle: Handle[Any]) -> Command[str]:
        failure = encode_record(Failure("Cancelled", "cancelled before it ran"))
        record = encode_result("cancel", State.CANCELLED, failure)
        client_id, keep_ms = self.results.client_id, int(max(self.config.keep.result_s, 60) * 1000)
        return scripts.cancel(
            self.keys(handle.queue),
            handle.id,
            client_id,
            record,
            keep_ms,
            client_id,
            lane=handle.lane,
            entry=handle.entry,
        )

    def close(self) -> None:
        """Close what threads use; the next use makes it anew."""
        if self._pid != os.getpid():
            self._reset()
            return
        for part in (self._results, self._sender, self._driver, self._embedded):
            if part is not None:
                part.close()
        loops = self._loops
        self._reset()
        self._loops = loops

    async def aclose(self) -> None:
        """Close what the running loop uses."""
        side = self._loops.pop(asyncio.get_running_loop(), None)
        if side is not None:
            await side[0].close()
