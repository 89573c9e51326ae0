"""Ask Redis before bodies with a rate begin: while one question is under way the next gathers (rule 28)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from streamwork.broker.resend import backoff_s
from streamwork.errors import StoreError
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import Command
from streamwork.store.limiting import Beginning, begin
from streamwork.wire.message import encode_attempt
from streamwork.worker.delivery import Run

logger = logging.getLogger(__name__)

_AT_ONCE = 200


class Beginner:
    """The deliveries of one process that may not begin without a word from Redis.

    Args:
        driver: The process's shared connection.
        submit: Takes a delivery that may begin.
        drop: Takes one that may not: it waits in a line again, or another consumer has it.
    """

    def __init__(self, driver: AsyncDriver, submit: Callable[[Run], None], drop: Callable[[Run], None]) -> None:
        self._driver = driver
        self._submit = submit
        self._drop = drop
        self._waiting: deque[Run] = deque()
        self._asking: asyncio.Task[None] | None = None

    def add(self, run: Run) -> None:
        """Take a delivery; only from the loop's thread."""
        self._waiting.append(run)
        if self._asking is None:
            self._start()

    def _start(self) -> None:
        self._asking = asyncio.get_running_loop().create_task(self._ask(), name="streamwork-begin")
        self._asking.add_done_callback(self._ended)

    def _ended(self, asking: asyncio.Task[None]) -> None:
        self._asking = None
        if asking.cancelled():
            return
        if asking.exception() is not None:
            logger.error("deliveries with a rate could not be begun", exc_info=asking.exception())
        # What came behind its last look and before this call has started nobody.
        if self._waiting:
            self._start()

    async def _ask(self) -> None:
        failures = 0
        while self._waiting:
            runs = self._next()
            if not runs:
                continue
            try:
                await self._driver.connect()
                answers = await self._driver.run(self._command(runs))
            except StoreError as error:
                # Asked again it may spend a second token, and never gives one too many.
                failures += 1
                if failures == 1:
                    logger.warning("deliveries with a rate wait for Redis", extra={"error": str(error)})
                self._waiting.extendleft(reversed(runs))
                await asyncio.sleep(backoff_s(failures))
                continue
            failures = 0
            for run, answer in zip(runs, answers, strict=True):
                if run.is_over:
                    continue  # it was given back meanwhile
                if answer == 1:
                    self._submit(run)
                else:
                    self._drop(run)

    def _next(self) -> list[Run]:
        """Return what can be asked for at once: deliveries of one lane, made to one consumer."""
        first = self._waiting[0]
        runs: list[Run] = []
        while self._waiting and len(runs) < _AT_ONCE:
            run = self._waiting[0]
            if run.lane is not first.lane or run.consumer != first.consumer:
                break
            runs.append(self._waiting.popleft())
        return [run for run in runs if not run.is_over]

    @staticmethod
    def _command(runs: list[Run]) -> Command[list[int]]:
        lane = runs[0].lane
        deliveries = []
        for run in runs:
            assert run.message is not None
            body = run.fields[run.fields.index(b"d") + 1]
            past = encode_attempt(run.attempt).encode()
            deliveries.append(Beginning(run.message.id, run.entry, run.count, past, body))
        return begin(lane.queue.keys, lane.name, runs[0].consumer, deliveries)
