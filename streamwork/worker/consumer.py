"""Read deliveries into free slots: adopt what was given back, then new ones, highest lane first."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from streamwork.broker.resend import backoff_s
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import StoreError, StoreUnavailable
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.failures import NoGroup
from streamwork.wire.message import Attempt
from streamwork.worker.delivery import LaneSide, QueueSide, Run
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

    def __init__(  # noqa: PLR0913 - wired in one place
        self, name: str, queues: list[QueueSide], reading: AsyncDriver, driver: AsyncDriver, table: SlotTable,
        room: Callable[[], int], accept: Callable[[Run], None],
    ) -> None:  # fmt: skip
        self.name = name
        self.queues = queues
        self.block_ms = 2_000
        self.half_ttl_ms = 2_500
        self.max_starve_ms = 10_000
        self.use_bells = False
        self.suspects: deque[Run] = deque()
        self.is_idle = False
        self.in_hand: Callable[[], int] = lambda: 0  # set by the worker: deliveries queued or running
        self._reading = reading
        self._driver = driver
        self._table = table
        self._room = room
        self._accept = accept
        self._stopping = False
        self._needs_heal = False
        self._waiting: asyncio.Future[None] | None = None
        self.answer: asyncio.Future[None] | None = None
        self._blocking = False
        self._reads = 0

    def poke(self) -> None:
        """Look again now: room was made, lanes changed, or something was given back."""
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def interrupt(self) -> Awaitable[None] | None:
        """Wake a blocked read, because what it should read has changed."""
        self.poke()
        if self._blocking and self._reading.greeting is not None:
            return self._unblock(self._reading.greeting.client_id)
        return None

    async def _unblock(self, client_id: int) -> None:
        try:
            await self._driver.run(plain("CLIENT", "UNBLOCK", client_id))
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
            except NoGroup:
                self._needs_heal = True
            except StoreUnavailable as error:
                failures += 1
                self.is_idle = False
                if failures == 1:
                    logger.warning("reading interrupted", extra={"consumer": self.name, "error": str(error)})
                await asyncio.sleep(backoff_s(failures))
            except StoreError:
                logger.exception("reading refused", extra={"consumer": self.name})
                failures += 1
                await asyncio.sleep(max(0.5, backoff_s(failures)))

    def _may_read(self) -> bool:
        return SYSTEM_CLOCK.steady_ms() - self._table.beat_at_ms < self.half_ttl_ms

    async def _turn(self) -> None:
        if self._needs_heal:
            await self._heal()
            self._needs_heal = False
        room = self._room()
        if self.suspects:
            await self._run_suspect()
            return
        lanes = [lane for queue in self.queues for lane in queue.lanes]
        if room <= 0 or not lanes or not self._may_read():
            self.is_idle = not lanes
            await self._wait_for_change()
            return
        if await self._adopt(room):
            return
        self._reads += 1
        if len(lanes) > 1 and await self._sweep(lanes, room):
            return
        await self._block(lanes, room)

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
        self.is_idle = self.is_idle or await self._read(lanes, 1 if len(lanes) > 1 else room, None) == 0
        if not self.is_idle:
            return
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
        if await self._sweep(lanes, room) >= room and rung is not None:
            await self._driver.run(plain("RPUSH", rung[0], "1"))  # there may be more than this process can take

    async def _read(self, lanes: list[LaneSide], count: int, block_ms: int | None) -> int:
        await self._reading.connect()
        server = self._reading.run_id
        command = scripts.read_new([(lane.stream, lane.name) for lane in lanes], self.name, count, block_ms)
        # A read that will be answered at once: the settler lets it go first, so that slots fill while outcomes are packed.
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
        accept, name = self._accept, self.name
        excess: list[Run] = []
        room = self._room()
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
            await self.release(excess)
        return taken

    def _lane_of(self, stream: bytes, lanes: list[LaneSide]) -> LaneSide:
        for queue in self.queues:
            lane = queue.streams.get(stream)
            if lane is not None:
                return lane
        return next(lane for lane in lanes if lane.stream.encode() == stream)

    async def _adopt(self, room: int) -> bool:
        """Take over marked entries before new ones (rule 16); True when there were any."""
        for queue in self.queues:
            for lane in queue.lanes:
                if lane.name not in queue.returned:
                    continue
                await self._driver.connect()
                server = self._driver.run_id
                adopted = await self._driver.run(scripts.adopt(queue.keys, lane.name, self.name, room))
                if len(adopted) < room:
                    queue.returned.discard(lane.name)
                self._take_adopted(lane, adopted, server)
                if adopted:
                    return True
        return False

    def _take_adopted(self, lane: LaneSide, adopted: list[scripts.Adopted], server: str) -> None:
        for entry, fields, delivered, suspicion in adopted:
            if fields is None:
                logger.error("an adopted entry is gone from its stream", extra={"lane": lane.stream, "entry": entry.decode()})
                continue
            run = Run(lane, entry, fields, self.name, server)
            run.count = delivered
            if suspicion is not None:
                crashes, lost, evidence = suspicion.decode(errors="replace").split(",", 2)
                run.attempt = Attempt(crashes=int(crashes), lost=int(lost))
                run.is_suspect = True
                run.stop_reason = evidence
            if run.attempt.crashes:
                self.suspects.append(run)
            else:
                self._accept(run)
        if adopted:
            logger.info("adopted", extra={"lane": lane.stream, "entries": len(adopted), "consumer": self.name})

    async def _run_suspect(self) -> None:
        """Let a message whose process died run with nothing beside it, so that no neighbour is blamed (rule 17)."""
        if self.in_hand():
            await self._wait_for_change()
            return
        self._accept(self.suspects.popleft())
        while self.in_hand() and not self._stopping:
            await self._wait_for_change()

    async def audit(self, lanes: list[LaneSide], known: Callable[[bytes, bytes], bool], seen: set[tuple[str, bytes]]) -> set[tuple[str, bytes]]:
        """Look for own pending entries that this process lost track of (rule 18).

        Returns:
            (lane, entry) pairs unknown for the first time; those in `seen` were unknown before too and are taken up.
        """
        unknown: set[tuple[str, bytes]] = set()
        for lane in lanes:
            pending: list[Any] = await self._driver.run(plain("XPENDING", lane.stream, "workers", "-", "+", 1000, self.name))
            missing = [row[0] for row in pending if not known(lane.name_bytes, row[0])]
            again = [entry for entry in missing if (lane.stream, entry) in seen]
            unknown |= {(lane.stream, entry) for entry in missing if entry not in again}
            room = self._room()
            if again and room > 0:
                await self._driver.connect()
                server = self._driver.run_id
                own = await self._driver.run(scripts.adopt(lane.queue.keys, lane.name, self.name, room, again[:room]))
                logger.warning("own entries found again", extra={"lane": lane.stream, "entries": len(own)})
                self._take_adopted(lane, own, server)
        return unknown

    async def _heal(self) -> None:
        now_ms = SYSTEM_CLOCK.now_ms()
        for queue in self.queues:
            for lane in queue.lanes:
                mark = await self._driver.run(scripts.heal(queue.keys, lane.name, now_ms))
                if mark != "there":
                    logger.error("data lost: a lane's consumer group was gone and is made anew", extra={"lane": lane.stream, "from": mark})

    async def release(self, runs: list[Run]) -> int:
        """Give deliveries back in place, without counting an attempt; answers how many were still ours."""
        back = 0
        by_lane: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            by_lane.setdefault((run.lane.stream, run.consumer), []).append(run)
        for (_, consumer), group in by_lane.items():
            lane = group[0].lane
            back += await self._driver.run(
                scripts.release(lane.queue.keys, lane.name, consumer, [(run.entry, run.count) for run in group])
            )
        return back
