"""A worker inside a program's own event loop: keeper and worker side by side, without processes of their own.

For programs that want to run tasks beside their own work, and for tests. The daemon (`streamwork worker`) is sturdier:
here a body that blocks the loop also blocks the beat, and one that kills the process takes the program along.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

import msgspec

from streamwork.app import Streamwork
from streamwork.clock import SYSTEM_CLOCK, Clock
from streamwork.config import Config, load
from streamwork.errors import StoreError, StoreUnavailable
from streamwork.ids import random_id
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.intake import Settled
from streamwork.worker.keeper import Keeper
from streamwork.worker.slot_table import SlotTable
from streamwork.worker.worker import Worker

logger = logging.getLogger(__name__)


class EmbeddedWorker:
    """Runs an app's tasks on the running loop while its block lasts.

    ::

        async with EmbeddedWorker(app, {"worker.tags": ["backend"], "worker.slots": 10}):
            await serve_my_own_things()

    Leaving the block drains: nothing new is read, what runs may end within ``worker.drain_timeout_s``, the rest is
    given back at once. A body that blocks the loop for longer than half of ``liveness.ttl_s`` stops the reading, and
    one that blocks it for longer than all of it lets others take this worker for dead and run its tasks too; none of
    its late outcomes is then written. Put such bodies into plain functions: those run in threads.

    Args:
        app: Whose tasks it runs.
        settings: Further settings by dotted name; they beat the app's own.
        settled: Called on the loop with (run, item, committed) for each outcome that Redis has answered for.
        clock: Says when runs began and ended and when a retry is due; for tests.

    Attributes:
        worker: The worker, once started.

    Raises:
        ConfigError: A setting is wrong; nothing was started.
    """

    def __init__(
        self,
        app: Streamwork,
        settings: Mapping[str, Any] | None = None,
        settled: Settled | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.app = app
        self.config: Config = load(app.overrides, flags={**app.flags, **(settings or {})}).config
        self._me = f"{socket.gethostname()}-{os.getpid()}-{random_id(24)}"
        self._clock = clock
        self._table = SlotTable(self.config.worker.slots)
        self.worker = Worker(app, self.config, self._new_name(), self._table, settled)
        self.worker.is_guest = True
        self.worker.on_fenced = self._on_fenced
        self._keeper = Keeper(app.name, self.config, self.worker.queues, self._driver, self._me, self.worker.outage)
        self._running: asyncio.Task[None] | None = None
        self._renaming: set[asyncio.Task[None]] = set()

    def _new_name(self) -> str:
        return f"{self._me}-0-{random_id(24)}"

    def _driver(self, deadline_s: float) -> AsyncDriver:
        return AsyncDriver(self.app.connection.endpoint, ALL_SCRIPTS, deadline_s)

    def _registration(self) -> bytes:
        return msgspec.json.encode(
            {
                "worker": self._me,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "tags": sorted(self.config.worker.tags),
                "slots": self.config.worker.slots,
                "queues": self.worker.queues,
                "started_at_ms": SYSTEM_CLOCK.now_ms(),
            }
        )

    async def start(self) -> None:
        """Register, then work in the background.

        Raises:
            StoreError: Redis is away or refuses; nothing runs.
            Exception: What the lifespan raises; nothing runs.
        """
        await asyncio.to_thread(lambda: self.app.connection.endpoint)  # may start the embedded Redis, which blocks
        try:
            await self._keeper.start()
            await self.worker.start()
            self.worker.runner.now_ms = self._clock.now_ms
            try:
                await self._keeper.add(self.worker, self._registration())
            except BaseException:
                await self.worker.close()
                raise
        except BaseException:
            await self._keeper.stop()
            raise
        self._running = asyncio.create_task(self.worker.run(), name="streamwork-worker")
        self._keeper.declare(self.app.declared_schedules())
        self.tell()

    def tell(self) -> None:
        """Let the worker look at its lanes anew, for instance after its tags have changed."""
        self._keeper.tell(self.worker)

    def promote(self, queue: str) -> None:
        """Let what is due in a queue go to its lanes now, not when the promoter wakes by itself."""
        self._keeper.promote(queue)

    @property
    def failed(self) -> bool:
        """Whether the worker ended by an error of its own; `ended` raises it."""
        running = self._running
        return running is not None and running.done() and not running.cancelled() and running.exception() is not None

    async def ended(self) -> None:
        """Wait until the worker ends by itself; raises what ended it."""
        assert self._running is not None, "start it first"
        await asyncio.shield(self._running)

    async def stop(self, *, now: bool = False) -> None:
        """Drain and end; safe to call twice.

        Args:
            now: Do not wait for what runs: async bodies are cancelled, and all of it is given back.
        """
        running, self._running = self._running, None
        if running is None:
            return
        if now:
            self.worker.cancel_now()
        else:
            self.worker.drain()
        try:
            await running
        finally:
            await self._leave()

    async def _leave(self) -> None:
        for task in self._renaming:
            task.cancel()
        await asyncio.gather(*self._renaming, return_exceptions=True)
        try:
            await self._keeper.remove(self.worker, mode="leave")
        except StoreError as error:
            facts = {"consumer": self.worker.name, "error": str(error)}
            logger.warning("could not sign off, the reaper will", extra=facts)
        finally:
            await self._keeper.stop()
            self._table.close()

    def _on_fenced(self) -> None:
        task = asyncio.get_running_loop().create_task(self._rename(), name="streamwork-rename")
        self._renaming.add(task)
        task.add_done_callback(self._renaming.discard)

    async def _rename(self) -> None:
        """Go on under a name that was never used, once Redis knows it (rule 11)."""
        self.worker.rename(self._new_name())
        while True:
            try:
                await self._keeper.add(self.worker, self._registration())
            except StoreUnavailable:
                await asyncio.sleep(0.5)
            else:
                self.tell()
                return

    async def __aenter__(self) -> EmbeddedWorker:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
