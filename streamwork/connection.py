"""One app's link to Redis in this process: drivers, senders and the listener, each made when first needed."""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from streamwork.broker import inspect
from streamwork.broker.async_sender import AsyncSender
from streamwork.broker.outgoing import CHUNK_BYTES, CHUNK_MESSAGES, Outgoing
from streamwork.broker.results import Results
from streamwork.broker.sync_sender import SyncSender
from streamwork.config import Config
from streamwork.context import current
from streamwork.errors import BodyTooLarge, StoreError, UseAsync
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
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncDriver, AsyncSender]] = weakref.WeakKeyDictionary()

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
                    self._endpoint = Endpoint(self.config.url or self._join_embedded(), self.config.client.connect_timeout_s)
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

    def _outgoing(self, call: Call[Any]) -> Outgoing:
        task_id = new_task_id()
        body = encode_message(task_id, call.task_name, call.args, call.kwargs, call.options, self.results.client_id)
        if len(body) > self._max_body:
            raise BodyTooLarge(call.task_name, len(body), self._max_body)
        return Outgoing(task_id, call.lane, body)

    def send(self, call: Call[R]) -> Handle[R]:
        """Send one call; see `Task.enqueue` for what it raises."""
        refuse_on_loop("enqueue", "aenqueue")
        message = self._outgoing(call)
        (entry,) = self.sender.line().send(self.keys(call.queue), (message,))
        if call.queue not in self._known_queues:
            self._announce({call.queue})
        return Handle(self, message.task_id, call.queue, message.lane, entry, call.read_result)

    async def asend(self, call: Call[R]) -> Handle[R]:
        """Send one call from a loop, together with whatever else is being sent there."""
        message = self._outgoing(call)
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
        # Only `streamwork queues` reads this set, so a failure here is no failure of the enqueue; the next one repeats it.
        try:
            self.driver.run(plain("SADD", queues(self.namespace), *names))
        except StoreError:
            return
        self._known_queues |= names

    def send_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Send calls in chunks per queue; order is kept within a lane."""
        refuse_on_loop("enqueue_many", "aenqueue_many")
        bulk: Bulk[R] = Bulk(self)
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
        self._check_inside_task(handle)
        keys, results, driver = self.keys(handle.queue), self.results, self.driver
        results.watch(driver, keys)
        arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        results.wait(keys, handle.id, arrived.put)
        try:
            if arrived.empty():
                record = driver.run(plain("GET", keys.result(handle.id)))
                if record is not None:
                    results.ended(handle.id, record)
            return arrived.get(timeout=timeout_s)
        except queue.Empty:
            return None
        finally:
            results.forget(handle.id, arrived.put)

    async def await_(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Return the handle's result record, or None when the time is up."""
        self._check_inside_task(handle)
        keys, results = self.keys(handle.queue), self.results
        if not results.is_watched(keys):
            await asyncio.to_thread(lambda: results.watch(self.driver, keys))
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[bytes] = loop.create_future()

        def waiter(record: bytes) -> None:
            loop.call_soon_threadsafe(lambda: None if arrived.done() else arrived.set_result(record))

        results.wait(keys, handle.id, waiter)
        try:
            if not arrived.done():
                record = await self.async_driver.run(plain("GET", keys.result(handle.id)))
                if record is not None:
                    results.ended(handle.id, record)
            return await asyncio.wait_for(arrived, timeout_s)
        except TimeoutError:
            return None
        finally:
            results.forget(handle.id, waiter)

    @staticmethod
    def _check_inside_task(handle: Handle[Any]) -> None:
        context = current()
        if context is None or context.queue != handle.queue:
            return
        if context.free_slots is not None and context.free_slots() <= 0:
            raise UseAsync(
                f"{context.task_name} waits for {handle.id} on its own queue {handle.queue!r} and its worker has no free slot: "
                "this may never end; enqueue a follow-up instead, or raise --slots"
            )
        warnings.warn(
            f"{context.task_name} waits for a task of its own queue {handle.queue!r}: with all slots waiting, nothing moves",
            RuntimeWarning, stacklevel=4,
        )  # fmt: skip

    def state(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        refuse_on_loop("state", "astate")
        keys = self.keys(handle.queue)
        driver = self.driver
        return inspect.state_of(driver.run_all(inspect.look_for(keys, handle.id, handle.lane, handle.entry)))

    async def astate(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        keys = self.keys(handle.queue)
        return inspect.state_of(await self.async_driver.run_all(inspect.look_for(keys, handle.id, handle.lane, handle.entry)))

    def cancel(self, handle: Handle[Any]) -> str:
        """Ask that the task message does not run; see `Handle.cancel`."""
        refuse_on_loop("cancel", "acancel")
        return self.driver.run(self._cancel_command(handle))

    async def acancel(self, handle: Handle[Any]) -> str:
        """Ask that the task message does not run; see `Handle.cancel`."""
        return await self.async_driver.run(self._cancel_command(handle))

    def _cancel_command(self, handle: Handle[Any]) -> Command[str]:
        failure = encode_record(Failure("Cancelled", "cancelled before it ran"))
        record = encode_result("cancel", State.CANCELLED, failure)
        client_id, keep_ms = self.results.client_id, int(max(self.config.keep.result_s, 60) * 1000)
        return scripts.cancel(self.keys(handle.queue), handle.id, client_id, record, keep_ms, client_id)

    def close(self) -> None:
        """Close what threads use; the next use makes it anew."""
        if self._pid != os.getpid():
            self._reset()
            return
        for part in (self._results, self._sender, self._driver, self._embedded):
            if part is not None:
                part.close()
        self._reset_threads_side()

    def _reset_threads_side(self) -> None:
        loops = self._loops
        self._reset()
        self._loops = loops

    async def aclose(self) -> None:
        """Close what the running loop uses."""
        side = self._loops.pop(asyncio.get_running_loop(), None)
        if side is not None:
            await side[0].close()


class Bulk(Generic[R]):
    """The calls of one `enqueue_many` on their way: one buffer per queue, handles in the order of the calls."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.handles: list[Handle[R]] = []
        self.queues: set[str] = set()

    def chunks(self, calls: Iterable[Call[R]]) -> Iterator[tuple[QueueKeys, list[Outgoing], list[Handle[R]]]]:
        """Yield (queue, messages, their handles) as soon as a queue's buffer is full, and what is left at the end."""
        connection, outgoing, add = self._connection, self._connection._outgoing, self.handles.append  # noqa: SLF001 - its other half
        buffers: dict[str, tuple[list[Outgoing], list[Handle[R]]]] = {}
        sizes: dict[str, int] = {}
        for call in calls:
            message = outgoing(call)
            queue_name, length = call.queue, len(message.body)
            handle = Handle(connection, message.task_id, queue_name, message.lane, "", call.read_result)
            buffer = buffers.get(queue_name)
            if buffer is not None and (len(buffer[0]) == CHUNK_MESSAGES or sizes[queue_name] + length > CHUNK_BYTES):
                yield connection.keys(queue_name), *buffer
                buffer = None
            if buffer is None:
                buffer = buffers[queue_name] = ([], [])
                sizes[queue_name] = 0
                self.queues.add(queue_name)
            buffer[0].append(message)
            buffer[1].append(handle)
            sizes[queue_name] += length
            add(handle)
        for queue_name, buffer in buffers.items():
            yield connection.keys(queue_name), *buffer


def refuse_on_loop(blocking: str, twin: str) -> None:
    """Raise UseAsync on a running loop's thread: the call would stop every coroutine there (rule 37)."""
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public form raises instead, 1 us slower
        raise UseAsync(f"{blocking}() would block this event loop: use await {twin}()")
