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
from streamwork.errors import StoreError, StoreUnavailable
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.keys import QueueKeys

Batch = list[tuple[Outgoing, asyncio.Future[str]]]


class AsyncSender:
    """Coalesce the messages of one loop: while a chunk is in flight the next gathers, so idle latency is untouched."""

    def __init__(self, driver: AsyncDriver, config: ClientConfig) -> None:
        self._driver = driver
        self._config = config
        # Per queue, since each has its chunk in flight; gone while it is (see `Line`).
        self._senders: dict[str, Sender] = {}
        self._gathered: dict[str, deque[tuple[Outgoing, asyncio.Future[str]]]] = {}
        self._flushing: dict[str, asyncio.Task[None]] = {}

    def send(self, keys: QueueKeys, message: Outgoing) -> asyncio.Future[str]:
        """Send one message with the next chunk; the future holds its entry id or the error `SyncSender` would raise."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        gathered = self._gathered.get(keys.tag)
        if gathered is None:
            gathered = self._gathered[keys.tag] = deque()
        gathered.append((message, future))
        if keys.tag not in self._flushing:
            task = asyncio.get_running_loop().create_task(self._flush(keys, gathered), name=f"enqueue {keys.tag}")
            self._flushing[keys.tag] = task
        return future

    async def _flush(self, keys: QueueKeys, gathered: deque[tuple[Outgoing, asyncio.Future[str]]]) -> None:
        batch: Batch = []
        try:
            while gathered:
                batch = _next_batch(gathered)
                await self._send_batch(keys, batch)
        except BaseException:
            # The loop ends, or someone cancels every task of it: nobody will send the rest.
            for _, future in (*batch, *gathered):
                future.cancel()
            gathered.clear()
            raise
        finally:
            self._flushing.pop(keys.tag, None)

    async def _send_batch(self, keys: QueueKeys, batch: Batch) -> None:
        """Send what happens to travel together; a lane that is refused does not concern the others."""
        try:
            entries = await self._send_chunk(keys, [message for message, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to the callers
            parts = _by_lane(batch)
            if len(parts) > 1 and blames_lane(error):
                for part in parts:
                    await self._send_batch(keys, part)
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), entry in zip(batch, entries, strict=True):
                if not future.done():
                    future.set_result(entry)

    async def _send_chunk(self, keys: QueueKeys, chunk: Sequence[Outgoing]) -> list[str]:
        sender = self._senders.pop(keys.tag, None) or Sender(self._config.max_lanes)
        begun_s = time.monotonic()
        patience: Patience | None = None
        while True:
            try:
                entries = await self._driver.run(sender.command(keys, chunk, SYSTEM_CLOCK.now_ms()))
            except StoreUnavailable as error:
                patience = patience or Patience(self._config, begun_s)
                await asyncio.sleep(patience.pause_s(error, time.monotonic(), [message.task_id for message in chunk]))
            except StoreError as error:
                if not is_gap(error):
                    raise refused(error) from error
                sender = Sender(self._config.max_lanes)
            else:
                sender.sent(keys)
                self._senders[keys.tag] = sender
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
