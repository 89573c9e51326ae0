"""Read deliveries into free slots: adopt what was given back, then new ones, highest lane first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from streamwork.broker.resend import backoff_s
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import StoreError, StoreUnavailable
from streamwork.outage import Outage
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.failures import NoGroup
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from streamwork.worker.healing import Healer
from streamwork.worker.reclaimer import Reclaimer
from streamwork.worker.slot_table import SlotTable

logger = logging.getLogger(__name__)

# Every tenth read at most may be upside down, so that a starved lane moves and the high ones hardly notice (rule 7).
_UPSIDE_DOWN_EVERY = 10


class Consumer:
    """The reading loop of one process.

    Args:
        name: Consumer name, unique per start; changes when the consumer was fenced.
        queues: What it reads.
        reading: A connection of its own, since its reads block.
        driver: The process's shared connection.
        table: Where the supervisor leaves its beats.
        room: Answers how many deliveries may be taken now, ≥ 0.
        accept: Takes a delivery.
    """

    def __init__(
        self, name: str, queues: list[QueueSide], reading: AsyncDriver, driver: AsyncDriver, table: SlotTable,
        room: Callable[[], int], accept: Callable[[Run], None],
    ) -> None:  # fmt: skip
        self.name = name
        self.queues = queues
        self.block_ms = 2_000
        self.half_ttl_ms = 2_500
        self.max_starve_ms = 10_000
        self.use_bells = False
        self.reclaimer = Reclaimer(driver, accept)
        self.is_idle = False
        self.in_hand: Callable[[], int] = lambda: 0  # set by the worker: what a crash now would blame
        self.knows: Callable[[bytes, bytes], bool] = lambda _lane, _entry: True  # set by the worker: is it held
        self.outage = Outage()
        self.free_slots: Callable[[], int] = room  # set by the worker: slots free, whether or not it is time to read
        self._reading = reading
        self._driver = driver
        self._table = table
        self._room = room
        self._accept = accept
        self._stopping = False
        self._needs_heal = False
        self._healer = Healer(driver)
        self._in_doubt = False
        self._waiting: asyncio.Future[None] | None = None
        self.answer: asyncio.Future[None] | None = None
        self._blocking, self._reads = False, 0
        self._is_alone = self._is_changed = False
        self._asked: list[LaneSide] = []

    @property
    def lanes(self) -> list[LaneSide]:
        """The lanes that can be read, queue by queue, highest first."""
        return [lane for queue in self.queues if not queue.is_paused for lane in queue.lanes if not lane.is_foreign]

    def poke(self) -> None:
        """Look again now: room was made, lanes changed, or something was given back."""
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def interrupt(self) -> Awaitable[None] | None:
        """Wake a blocked read, because what it should read has changed."""
        self._is_changed = True
        self.poke()
        return self._unblock() if self._blocking else None

    async def _unblock(self) -> None:
        try:
            # Until it says that it did: the read may still be on its way, and what comes before it is in vain.
            while self._blocking:
                greeting = self._reading.greeting
                if greeting is not None and await self._driver.run(plain("CLIENT", "UNBLOCK", greeting.client_id)):
                    return
                await asyncio.sleep(0.005)
        except StoreError:
            pass  # the read returns by itself within its BLOCK

    def stop(self) -> None:
        """Read no more."""
        self._stopping = True
        self.poke()

    async def run(self) -> None:
        """Read until stopped; heals lost groups, waits out a Redis that is away."""
        failures = 0
        while not self._stopping:
            try:
                await self._turn()
                failures = 0
                self.outage.over("reading")
            except NoGroup:
                self._needs_heal = True
                self.outage.over("reading")
            except StoreUnavailable as error:
                failures += 1
                self.is_idle = False
                self._in_doubt = True
                self.outage.failed("reading", error)
                await asyncio.sleep(backoff_s(failures))
            except StoreError:
                self.outage.over("reading")
                if not await self.set_aside_foreign() and self._asked == self.lanes:  # else the audit was faster
                    logger.exception("reading refused", extra={"consumer": self.name})
                failures += 1
                await asyncio.sleep(max(0.5, backoff_s(failures)))

    async def set_aside_foreign(self) -> bool:
        """Leave alone the lanes whose key is no stream, since one of them fails the read of all; True if that helps."""
        try:
            return await self.reclaimer.set_aside_foreign([lane for queue in self.queues for lane in queue.lanes])
        except StoreError:
            return False

    def _may_read(self) -> bool:
        return bool(self.name) and SYSTEM_CLOCK.steady_ms() - self._table.beat_at_ms < self.half_ttl_ms

    async def _turn(self) -> None:
        self._is_changed = False
        if self._needs_heal:
            await self._healer.heal(self.lanes)
            self._needs_heal = False
        room = self._room()
        if self.reclaimer.suspects:
            await self._run_suspect()
            return
        lanes = self._asked = self.lanes
        if room <= 0 or not lanes or not self._may_read():
            self.is_idle = not lanes
            await self._wait_for_change()
            return
        name = self.name
        if self._in_doubt:
            # The answer to a read or an adoption may be lost, and nobody else will look for what it brought.
            await self.reclaimer.audit(lanes, name, lambda: self._room_now(name), self.knows, None)
            self._in_doubt = False
        self.is_idle = self.is_idle and not self._healer.is_asked(lanes)
        if await self.reclaimer.adopt(self.queues, name, room, lambda: self._room_now(name)):
            return
        self._reads += 1
        if len(lanes) > 1 and await self._sweep(lanes, room):
            return
        await self._block(lanes, room)

    def _is_still(self, name: str) -> bool:
        """Whether what was asked for under this name may be begun: a frozen process may have been taken for dead."""
        return name == self.name and self._may_read() and not self._stopping

    def _room_now(self, name: str) -> int:
        """How much of what was asked for under this name may be begun, now that it is there."""
        return self.free_slots() if self._is_still(name) else 0

    def room_beside(self, name: str) -> int:
        """Answer how many deliveries may be begun that did not come by this loop: found by the audit, while it reads.

        None while a suspect runs, or waits to run: nothing may run beside it.
        """
        return 0 if self._is_alone or self.reclaimer.suspects else self._room_now(name)

    async def _wait_for_change(self) -> None:
        self._table.read_at_ms = SYSTEM_CLOCK.steady_ms()
        if self._room() > 0 and not self._may_read():
            await asyncio.sleep(0.05)
            return
        # A bare future: asyncio.wait_for makes a task for each wait, and under load there are thousands a second.
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(self.block_ms / 1000, self.poke)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    async def _sweep(self, lanes: list[LaneSide], room: int) -> int:
        """Read without waiting, highest lane first, what is left of the room each time."""
        now_ms = SYSTEM_CLOCK.steady_ms()
        starved = [lane for lane in lanes if now_ms - (lane.looked_at_ms or now_ms) > self.max_starve_ms // 2]
        for lane in lanes:
            lane.looked_at_ms = lane.looked_at_ms or now_ms
        taken = 0
        if starved and self._reads % _UPSIDE_DOWN_EVERY == 0:
            taken += await self._read([starved[-1]], 1, None)
        for lane in lanes:
            if taken >= room:
                break
            taken += await self._read([lane], room - taken, None)
        return taken

    async def _block(self, lanes: list[LaneSide], room: int) -> None:
        # A burst must not wait for a whole BLOCK to learn that there is nothing: look once without waiting.
        found = 0 if self.is_idle else await self._read(lanes, 1 if len(lanes) > 1 else room, None)
        if found or await self._healer.is_restoring(self.queues):
            return
        self.is_idle = True
        if self._is_changed:
            return  # what there is to read has changed since this turn began, and nobody would wake the read again
        self._blocking = True
        try:
            if self.use_bells:
                await self._wait_for_bell(lanes, room)
            else:
                # COUNT is per stream: with several lanes one each is the most that can be asked for safely (rule 5).
                await self._read(lanes, room if len(lanes) == 1 else 1, self.block_ms)
        finally:
            self._blocking = False

    async def _wait_for_bell(self, lanes: list[LaneSide], room: int) -> None:
        bells = list(dict.fromkeys(lane.queue.keys.bell(lane.name) for lane in lanes))
        rung = await self._reading.run(plain("BLPOP", *bells, self.block_ms / 1000))
        self._table.read_at_ms = SYSTEM_CLOCK.steady_ms()
        if self._stopping and rung is not None:
            await self._driver.run(plain("RPUSH", rung[0], "1"))  # for another one
            return
        if await self._sweep(lanes, room) >= room and rung is not None:
            await self._driver.run(plain("RPUSH", rung[0], "1"))  # there may be more than this process can take

    async def _read(self, lanes: list[LaneSide], count: int, block_ms: int | None) -> int:
        await self._reading.connect()
        if self._stopping:
            return 0
        # The name can change while the read is on its way: what it brings belongs to the old one.
        server, name = self._reading.run_id, self.name
        command = scripts.read_new([(lane.stream, lane.name) for lane in lanes], name, count, block_ms)
        # A read that is answered at once: the settler lets it go first, so that slots fill while outcomes are packed.
        self.answer = None if self.is_idle else asyncio.get_running_loop().create_future()
        try:
            reply = await self._reading.run(command)
        finally:
            if self.answer is not None and not self.answer.done():
                self.answer.set_result(None)
            self.answer = None
        now_ms = self._table.read_at_ms = SYSTEM_CLOCK.steady_ms()
        for lane in lanes:
            lane.looked_at_ms = now_ms
        if not reply:
            return 0
        self.is_idle = False
        taken = 0
        accept = self._accept
        excess: list[Run] = []
        room = self._room_now(name)
        for stream, entries in reply:
            lane = self._lane_of(stream, lanes)
            for entry, fields in entries:
                run = Run(lane, entry, fields, name, server)
                taken += 1
                if taken > room:
                    excess.append(run)
                else:
                    accept(run)
        if excess:
            await self.reclaimer.release(excess)
        return taken

    def _lane_of(self, stream: bytes, lanes: list[LaneSide]) -> LaneSide:
        for queue in self.queues:
            lane = queue.streams.get(stream)
            if lane is not None:
                return lane
        return next(lane for lane in lanes if lane.stream.encode() == stream)

    async def _run_suspect(self) -> None:
        """Let a message whose next crash is its last run with nothing beside it: it is surely its own (rule 17)."""
        if self.in_hand():
            await self._wait_for_change()
            return
        self._is_alone = True
        try:
            self._accept(self.reclaimer.suspects.popleft())
            while self.in_hand() and not self._stopping:
                await self._wait_for_change()
        finally:
            self._is_alone = False
