"""Write outcomes: while one settle is in flight the next gathers, then goes as one script call (group commit).

An outcome stays here until Redis has answered for it; what is here counts against the bound on reading (rule 24).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from streamwork.broker.resend import backoff_s
from streamwork.errors import StoreError, StoreRejected, StoreUnavailable
from streamwork.model.state import State
from streamwork.outage import Outage
from streamwork.spool import Spooled
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.failures import NotPermitted
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import SettleItem
from streamwork.wire.message import WIRE_VERSION, DeadLetter, Failure, encode_attempt, encode_record, encode_result
from streamwork.worker.delivery import Run

logger = logging.getLogger(__name__)

# One chunk keeps Redis for 5 ms at most: about 430 no-ops of 300 bytes at 11 us each. With half of that, one chunk in
# flight at a time, the bound on what is unsent held reading back (12 % of a drain of no-ops).
CHUNK_ITEMS = 500
CHUNK_BYTES = 131_072
# What may wait unsent before reading stops: twice the slots, or this much.
MOST_UNSENT_BYTES = 64 * 1024 * 1024
# How long a settle lets a read in flight go first: a round trip, so that free slots do not wait behind outcomes.
READ_FIRST_S = 0.002

Ended = Callable[[Run, SettleItem, bool], None]


class Settler:
    """The outcomes of one process on their way to Redis.

    Args:
        driver: The process's shared connection.
        ended: Told (run, item, committed) once Redis has answered.
    """

    def __init__(self, driver: AsyncDriver, ended: Ended) -> None:
        self._driver = driver
        self._ended = ended
        self._gathered: deque[tuple[Run, SettleItem]] = deque()
        self._sending: list[tuple[Run, SettleItem]] = []
        self._bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._closing = False
        self.outage = Outage()
        self.read_answer: Callable[[], asyncio.Future[None] | None] = lambda: None  # set by the worker

    @property
    def unsent(self) -> int:
        """Outcomes that Redis has not answered for."""
        return len(self._gathered) + len(self._sending)

    @property
    def unsent_bytes(self) -> int:
        """What they weigh."""
        return self._bytes

    def add(self, run: Run, item: SettleItem) -> None:
        """Take an outcome; only from the loop's thread."""
        self._gathered.append((run, item))
        self._bytes += item.size
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    def pending(self) -> list[tuple[Run, SettleItem]]:
        """Return what Redis has not answered for, oldest first."""
        return [*self._sending, *self._gathered]

    async def settle_spooled(self, namespace: str, outcomes: list[Spooled]) -> list[StoreRejected]:
        """Settle what an earlier process left in a file, and return why some of it was refused for good.

        Raises:
            StoreError: Redis is away or full, or refuses the login: all of it may be sent again.
        """
        await self._driver.connect()
        refused: list[StoreRejected] = []
        for outcome in outcomes:
            item = (
                outcome.item
                if outcome.server == self._driver.run_id
                else outcome.item._replace(op=outcome.item.op + "!")
            )
            facts = {"entry": item.entry.decode(errors="replace"), "lane": item.lane}
            try:
                lost = await self._driver.run(
                    scripts.settle(QueueKeys(namespace, outcome.queue), outcome.consumer, [item])
                )
            except NotPermitted:
                raise
            except StoreRejected as error:
                refused.append(error)
                continue
            if lost:
                logger.warning("a spooled outcome came too late", extra=facts)
        return refused

    def take_unsent(self) -> list[tuple[Run, SettleItem]]:
        """Hand over what was not committed, for the spool at the drain deadline."""
        left = self.pending()
        self._gathered.clear()
        self._sending = []
        self._bytes = 0
        return left

    async def run(self) -> None:
        """Send until closed and empty; may be run again after it was cancelled."""
        self._gathered.extendleft(reversed(self._sending))
        self._sending = []
        while True:
            while not self._gathered:
                if self._closing:
                    return
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
                self._wake = None
            await self._let_read_pass()
            self._sending = self._next_chunk()
            await self._persist(self._sending)

    async def _let_read_pass(self) -> None:
        answer = self.read_answer()
        if answer is not None and not answer.done():
            timer = asyncio.get_running_loop().call_later(
                READ_FIRST_S, lambda: None if answer.done() else answer.set_result(None)
            )
            await answer
            timer.cancel()

    def close(self) -> None:
        """Let `run` return once everything is sent."""
        self._closing = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _next_chunk(self) -> list[tuple[Run, SettleItem]]:
        gathered = self._gathered
        first = gathered[0][0]
        queue, consumer = first.lane.queue, first.consumer
        chunk: list[tuple[Run, SettleItem]] = []
        size = 0
        while gathered and len(chunk) < CHUNK_ITEMS:
            run, item = gathered[0]
            size += item.size
            if chunk and (size > CHUNK_BYTES or run.lane.queue is not queue or run.consumer != consumer):
                break
            chunk.append(gathered.popleft())
        return chunk

    async def _persist(self, chunk: list[tuple[Run, SettleItem]]) -> None:
        failures = 0
        while chunk:
            try:
                await self._commit(chunk)
            except StoreUnavailable as error:
                failures += 1
                self.outage.failed("settling", error)
                await asyncio.sleep(backoff_s(failures))
            except NotPermitted as error:  # like the one above it says nothing about the outcomes
                self.outage.over("settling")
                failures += 1
                if failures == 1:
                    logger.error("outcomes wait until this user may write them", extra={"error": str(error)})  # noqa: TRY400
                await asyncio.sleep(backoff_s(failures))
            except StoreError as error:
                self.outage.over("settling")
                await self._bisect(chunk, error)
                return
            else:
                self.outage.over("settling")
                return

    async def _commit(self, chunk: list[tuple[Run, SettleItem]]) -> None:
        await self._driver.connect()
        server = self._driver.run_id
        # On another server process than the one that delivered, the ids may be foreign (rule 22).
        items = [item if run.server == server else item._replace(op=item.op + "!") for run, item in chunk]
        run = chunk[0][0]
        lost = await self._driver.run(scripts.settle(run.lane.queue.keys, run.consumer, items))
        refused = set(lost)
        ended = self._ended
        for position, (settled, item) in enumerate(chunk):
            self._bytes -= item.size
            ended(settled, item, position not in refused)
        self._sent(chunk)

    def _sent(self, chunk: list[tuple[Run, SettleItem]]) -> None:
        if len(chunk) == len(self._sending):
            self._sending = []
            return
        answered = {id(run) for run, _ in chunk}
        self._sending = [pair for pair in self._sending if id(pair[0]) not in answered]

    async def _bisect(self, chunk: list[tuple[Run, SettleItem]], error: StoreError) -> None:
        if len(chunk) > 1:
            middle = len(chunk) // 2
            await self._persist(chunk[:middle])
            await self._persist(chunk[middle:])
            return
        run, item = chunk[0]
        logger.error(
            "an outcome cannot be written",
            extra={"entry": run.entry.decode(), "lane": run.lane.stream, "error": str(error)},
        )
        try:
            await self._commit([(run, _minimal(run, item, str(error)))])
        except (StoreUnavailable, NotPermitted):
            await asyncio.sleep(backoff_s(3))
            await self._persist(chunk)
        except StoreError as again:
            # Not even that: the entry stays pending with this consumer and its audit brings it back.
            logger.error("nor can its dead letter", extra={"entry": run.entry.decode(), "error": str(again)})  # noqa: TRY400 - ours
            self._bytes -= item.size
            self._ended(run, item, False)
            self._sent(chunk)


def _minimal(run: Run, item: SettleItem, error: str) -> SettleItem:
    keys: QueueKeys = run.lane.queue.keys
    task_id = item.result_key[len(keys.result_prefix) :]
    failure = Failure("SettleError", error[:500])
    body = run.fields[run.fields.index(b"d") + 1] if b"d" in run.fields else b""
    letter = DeadLetter(
        WIRE_VERSION, task_id, run.message.task if run.message else "", run.lane.name, "settle_error", failure,
        encode_attempt(run.attempt), run.started_at_ms, body,
    )  # fmt: skip
    rest = (
        encode_result(run.token, State.DEAD, encode_record(failure)),
        86_400_000,
        max(run.started_at_ms, 1),
        encode_record(letter),
    )
    return item._replace(op="D" + item.op[1:].replace("!", ""), rest=rest, reply_key=item.reply_key)
