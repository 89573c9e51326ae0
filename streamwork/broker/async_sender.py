"""Send task messages from one event loop; concurrent callers share one request (group commit)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from streamwork.broker.outgoing import CHUNK_BYTES, CHUNK_MESSAGES, Outgoing, Sender
from streamwork.broker.resend import Patience, blames_lane, is_gap, refused
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import ClientConfig
from streamwork.errors import StoreError, StoreFull, StoreUnavailable
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.keys import QueueKeys

Batch = list[tuple[Outgoing, asyncio.Future[str]]]
# What travels together: one queue's messages whose callers wait equally long, those for now and those for later apart.
_Line = tuple[str, float | None, str]


class AsyncSender:
    """Coalesce the messages of one loop: while a chunk is in flight the next gathers, so idle latency is untouched."""

    def __init__(self, driver: AsyncDriver, config: ClientConfig) -> None:
        self._driver = driver
        self._config = config
        # Per line, since each has its chunk in flight; gone while it is (see `sync_sender.Line`).
        self._senders: dict[_Line, Sender] = {}
        self._gathered: dict[_Line, deque[tuple[Outgoing, asyncio.Future[str]]]] = {}
        self._flushing: dict[_Line, asyncio.Task[None]] = {}

    def send(self, keys: QueueKeys, message: Outgoing, wait_s: float | None = None) -> asyncio.Future[str]:
        """Send one message with the next chunk; the future holds its entry id or the error `SyncSender` would raise."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        line = keys.tag, wait_s, message.way
        gathered = self._gathered.get(line)
        if gathered is None:
            gathered = self._gathered[line] = deque()
        gathered.append((message, future))
        if line not in self._flushing:
            task = asyncio.get_running_loop().create_task(self._flush(keys, line, gathered), name=f"enqueue {keys.tag}")
            self._flushing[line] = task
        return future

    async def _flush(self, keys: QueueKeys, line: _Line, gathered: deque[tuple[Outgoing, asyncio.Future[str]]]) -> None:
        batch: Batch = []
        try:
            while gathered:
                batch = _next_batch(gathered)
                await self._send_batch(keys, line, batch)
        except BaseException:
            # The loop ends, or someone cancels every task of it: nobody will send the rest.
            for _, future in (*batch, *gathered):
                future.cancel()
            gathered.clear()
            raise
        finally:
            self._flushing.pop(line, None)
            if line[1] is not None:  # how long somebody waits may be another number each time
                self._gathered.pop(line, None)
                self._senders.pop(line, None)

    async def _send_batch(self, keys: QueueKeys, line: _Line, batch: Batch) -> None:
        """Send what happens to travel together; a lane that is refused does not concern the others."""
        try:
            entries = await self._send_chunk(keys, line, [message for message, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to the callers
            parts = _by_lane(batch)
            if len(parts) > 1 and blames_lane(error):
                for part in parts:
                    await self._send_batch(keys, line, part)
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), entry in zip(batch, entries, strict=True):
                if not future.done():
                    future.set_result(entry)

    async def _send_chunk(self, keys: QueueKeys, line: _Line, chunk: Sequence[Outgoing]) -> list[str]:
        sender = self._senders.pop(line, None) or Sender(self._config.max_lanes)
        begun_s = time.monotonic()
        patience: Patience | None = None
        while True:
            try:
                entries = await self._driver.run(sender.command(keys, chunk, SYSTEM_CLOCK.now_ms()))
            except (StoreUnavailable, StoreFull) as error:
                patience = patience or Patience(self._config, begun_s, line[1])
                await asyncio.sleep(patience.pause_s(error, time.monotonic(), [message.task_id for message in chunk]))
            except StoreError as error:
                if not is_gap(error):
                    raise refused(error) from error
                sender = Sender(self._config.max_lanes)
            else:
                sender.sent(keys)
                self._senders[line] = sender
                return entries


def _by_lane(batch: Batch) -> list[Batch]:
    parts: dict[str, Batch] = {}
    for message, future in batch:
        parts.setdefault(message.lane, []).append((message, future))
    return list(parts.values())


def _next_batch(gathered: deque[tuple[Outgoing, asyncio.Future[str]]]) -> Batch:
    batch: Batch = []
    size = 0
    while gathered and len(batch) < CHUNK_MESSAGES:
        size += len(gathered[0][0].body)
        if batch and size > CHUNK_BYTES:
            break
        batch.append(gathered.popleft())
    return batch
