"""Send task messages from one event loop; concurrent callers share one request (group commit)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

from streamwork.broker.outgoing import CHUNK_BYTES, CHUNK_MESSAGES, Outgoing, Sender
from streamwork.broker.resend import REFUSALS, Patience, blames_lane, is_gap, refused
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import ClientConfig
from streamwork.errors import QueueFull, StoreError, StoreUnavailable
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import Command
from streamwork.store.keys import QueueKeys

T = TypeVar("T")

# What is sent, who waits for its entry id, and since when (steady s).
_Given = tuple[Outgoing, asyncio.Future[str], float]
Batch = list[_Given]
# What travels together: one queue's messages whose callers wait equally long, those for now and those for later apart.
_Line = tuple[str, float | None, str]
# Who waits for room is told after the time that was asked for, give or take this much.
_NEAR_S = 0.1


class AsyncSender:
    """Coalesce the messages of one loop: while a chunk is in flight the next gathers, so idle latency is untouched."""

    def __init__(self, driver: AsyncDriver, config: ClientConfig) -> None:
        self._driver = driver
        self._config = config
        self._limits = config.backlogs
        # Per line, since each has its chunk in flight; gone while it is (see `sync_sender.Line`).
        self._senders: dict[_Line, Sender] = {}
        self._gathered: dict[_Line, deque[_Given]] = {}
        self._flushing: dict[_Line, asyncio.Task[None]] = {}

    def send(self, keys: QueueKeys, message: Outgoing, wait_s: float | None = None) -> asyncio.Future[str]:
        """Send one message with the next chunk; the future holds its entry id or the error `SyncSender` would raise."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        line = keys.tag, wait_s, message.way
        gathered = self._gathered.get(line)
        if gathered is None:
            gathered = self._gathered[line] = deque()
        gathered.append((message, future, time.monotonic()))
        if line not in self._flushing:
            task = asyncio.get_running_loop().create_task(self._flush(keys, line, gathered), name=f"enqueue {keys.tag}")
            self._flushing[line] = task
        return future

    async def _flush(self, keys: QueueKeys, line: _Line, gathered: deque[_Given]) -> None:
        batch: Batch = []
        try:
            while gathered:
                batch = _next_batch(gathered, None if line[1] is None else _NEAR_S)
                gathered.extendleft(reversed(await self._send_batch(keys, line, batch)))
        except BaseException:
            # The loop ends, or someone cancels every task of it: nobody will send the rest.
            for _, future, _ in (*batch, *gathered):
                future.cancel()
            gathered.clear()
            raise
        finally:
            self._flushing.pop(line, None)
            if line[1] is not None:  # how long somebody waits may be another number each time
                self._gathered.pop(line, None)
                self._senders.pop(line, None)

    async def _send_batch(self, keys: QueueKeys, line: _Line, batch: Batch) -> Batch:
        """Send what happens to travel together; a lane that is refused does not concern the others.

        Returns:
            What there was no room for, behind what there was: it is next.
        """
        begun_s = None if line[1] is None else batch[-1][2]
        try:
            entries = await self._send_chunk(keys, line, [message for message, _, _ in batch], begun_s)
        except Exception as error:  # noqa: BLE001 - handed to the callers
            if isinstance(error, QueueFull) and 0 < error.room < len(batch):
                return [*await self._send_batch(keys, line, batch[: error.room]), *batch[error.room :]]
            parts = _by_lane(batch)
            if len(parts) > 1 and blames_lane(error):
                return [given for part in parts for given in await self._send_batch(keys, line, part)]
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future, _), entry in zip(batch, entries, strict=True):
                if not future.done():
                    future.set_result(entry)
        return []

    async def _send_chunk(
        self, keys: QueueKeys, line: _Line, chunk: Sequence[Outgoing], begun_s: float | None = None
    ) -> list[str]:
        sender = self._senders.pop(line, None) or Sender(self._config.max_lanes, self._limits)
        begun_s = time.monotonic() if begun_s is None else begun_s
        patience = Patience(self._config, begun_s, line[1])
        while True:
            try:
                command = sender.command(keys, chunk, SYSTEM_CLOCK.now_ms())
                entries = await self._answer(command, patience.answer_by_s(time.monotonic()))
            except REFUSALS as error:
                if isinstance(error, QueueFull) and 0 < error.room < len(chunk) and not patience.in_doubt:
                    self._senders[line] = sender
                    raise
                await asyncio.sleep(patience.pause_s(error, time.monotonic(), [message.task_id for message in chunk]))
            except StoreError as error:
                if not is_gap(error):
                    raise refused(error) from error
                sender = Sender(self._config.max_lanes, self._limits)
            else:
                sender.sent(keys)
                self._senders[line] = sender
                return entries

    async def _answer(self, command: Command[T], by_s: float | None) -> T:
        if by_s is None:
            return await self._driver.run(command)
        is_sent = False
        try:
            async with asyncio.timeout(by_s - time.monotonic()):
                await self._driver.connect()
                is_sent = True
                return await self._driver.run(command)
        except TimeoutError as error:
            where = self._driver.endpoint.where
            raise StoreUnavailable(f"no answer from Redis at {where} in time", maybe_executed=is_sent) from error


def _by_lane(batch: Batch) -> list[Batch]:
    parts: dict[str, Batch] = {}
    for given in batch:
        parts.setdefault(given[0].lane, []).append(given)
    return list(parts.values())


def _next_batch(gathered: deque[_Given], near_s: float | None) -> Batch:
    batch: Batch = []
    size = 0
    while gathered and len(batch) < CHUNK_MESSAGES:
        size += len(gathered[0][0].body)
        if batch and (size > CHUNK_BYTES or (near_s is not None and gathered[0][2] > batch[0][2] + near_s)):
            break
        batch.append(gathered.popleft())
    return batch
