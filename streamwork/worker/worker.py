"""One worker process: wires reader, runner, executors and settler, and ends them in order.

It neither beats nor reaps; a keeper does, in the supervisor or (embedded, tests) beside it on the same loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamwork.app import Streamwork
from streamwork.config import Config
from streamwork.errors import WorkerCut
from streamwork.model.lane import readable_lanes
from streamwork.outage import Outage
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker import spooling
from streamwork.worker.beginning import Beginner
from streamwork.worker.bounds import Bounds
from streamwork.worker.consumer import Consumer
from streamwork.worker.delivery import QueueSide
from streamwork.worker.drain import Drain, Hand
from streamwork.worker.executors import Executors
from streamwork.worker.intake import Intake, Settled
from streamwork.worker.lifespan import Lifespan
from streamwork.worker.notices import Notices
from streamwork.worker.runner import Runner
from streamwork.worker.selfcheck import SelfCheck
from streamwork.worker.settle import Settler
from streamwork.worker.slot_table import SlotTable
from streamwork.worker.telling import Telling

logger = logging.getLogger(__name__)


class Worker:
    """Reads, runs and settles in this process; a `Member` of its keeper.

    Args:
        app: Whose tasks it runs.
        config: Settings.
        name: First consumer name.
        table: Shared with the supervisor.
        settled: Told (run, item, committed) after each settle; for tests and statistics.

    Attributes:
        is_guest: It runs in the loop of a program that is not its own.
        unwritten: Outcomes that Redis had not taken when it ended.
        spooled: The file where those are; None where the disk refused too.
        outage: Told when Redis is away; another one is set before `start`.
    """

    def __init__(
        self, app: Streamwork, config: Config, name: str, table: SlotTable, settled: Settled | None = None
    ) -> None:
        self.app, self.config, self.table = app, config, table
        self.tags = frozenset(config.worker.tags)
        self._spool_folder = Path(config.folder) / "spool"
        self.unwritten, self.is_guest = 0, False
        self.on_fenced: Callable[[], None] | None = None
        self.spooled: Path | None = None
        self.outage = Outage()
        sides = enumerate(config.worker.queues or app.queues)
        self._queues = [QueueSide(QueueKeys(app.name, queue), number) for number, queue in sides]
        self._by_name = {queue.name: queue for queue in self._queues}
        self._name = name
        self._hand = Hand()
        self.telling = Telling(app.name, config, settled, lambda: self.in_hand)
        self._notices = Notices(app, config, self.telling.listener)
        self._intake = Intake(self._hand, table, config.worker.slots, self._notices.listener)
        self._draining, self._cancelled = asyncio.Event(), asyncio.Event()
        self._lifespan = Lifespan(app.lifespan_of, self.drain)
        self._loops: list[asyncio.Task[Any]] = []
        self._interrupts: set[asyncio.Task[Any]] = set()

    @property
    def queues(self) -> list[str]:
        """The queues it reads."""
        return [queue.name for queue in self._queues]

    @property
    def name(self) -> str:
        """Its consumer name now."""
        return self._name

    @property
    def taken(self) -> int:
        """Deliveries taken up since the start."""
        return self._hand.taken

    @property
    def ended(self) -> int:
        """Outcomes that Redis has committed since the start."""
        return self._intake.ended

    @property
    def in_hand(self) -> int:
        """Deliveries queued or running here."""
        return self._hand.count

    def _driver(self, deadline_s: float) -> AsyncDriver:
        return AsyncDriver(self.app.connection.endpoint, ALL_SCRIPTS, deadline_s)

    async def start(self) -> None:
        """Connect, enter the lifespan and make the parts; nothing is read before `run`.

        Raises:
            StoreError: Redis is away or refuses; start again later.
            Exception: What the lifespan raises.
        """
        client, worker = self.config.client, self.config.worker
        self.driver = self._driver(client.deadline_s)
        self._reading = self._driver(worker.block_s + client.deadline_s)
        try:
            await self.driver.connect()
            await self._make_parts()
            await spooling.settle_spooled(self.settler, self._spool_folder, self.app.name)
        except BaseException:
            await self.close()
            raise

    async def _make_parts(self) -> None:
        worker = self.config.worker
        resources = await self._lifespan.enter()
        intake = self._intake
        self.settler = Settler(self.driver, intake.settled)
        self.runner = intake.runner = Runner(self.app.tasks, self.table, self.settler.add, resources)
        self.telling.begin(self.runner)
        self.runner.free_slots = lambda task_id: self._hand.free_for(task_id, worker.slots)
        self.executors = intake.executors = Executors(self.app, worker, self.runner, intake.rows, intake.freed)
        intake.beginner = Beginner(self.driver, intake.begin, intake.dropped)
        bounds = Bounds(worker, self._hand, self.settler, self.executors, 0 if self.is_guest else worker.max_tasks)
        self.consumer = intake.consumer = Consumer(
            self._name, self._queues, self._reading, self.driver, self.table, bounds.to_read, intake.accept
        )
        self.consumer.block_ms = int(worker.block_s * 1000)
        self.consumer.half_ttl_ms = self.config.liveness.ttl_ms // 2
        self.consumer.max_starve_ms = int(worker.max_starve_s * 1000)
        self.consumer.in_hand = lambda: intake.blamable
        self.consumer.knows = self._hand.knows
        self.consumer.free_slots = bounds.free
        self.settler.read_answer = lambda: self.consumer.answer
        self.consumer.outage = self.settler.outage = self.outage

    @property
    def claimed_at_ms(self) -> int:
        """When it last had an answer to a read, steady ms."""
        return self.table.read_at_ms

    def beaten(self, at_ms: int) -> None:
        """Hear of a good beat."""
        self.table.beat_at_ms = at_ms

    def lanes_changed(self, queue: str, lanes: list[str], fleet: int) -> None:
        """Hear which lanes there are."""
        side = self._by_name.get(queue)
        if side is None:
            return
        side.set_lanes(readable_lanes(lanes, self.tags))
        self.consumer.use_bells = fleet >= self.config.worker.bell_fleet
        self._interrupt()

    def paused_changed(self, queue: str, marks: list[str]) -> None:
        """Hear what of a queue is not to be begun."""
        if (side := self._by_name.get(queue)) is not None:
            side.set_paused(marks)
            self._interrupt()

    def lane_returned(self, queue: str, lane: str) -> None:
        """Hear that a lane holds entries to adopt."""
        if (side := self._by_name.get(queue)) is not None:
            side.returned.add(lane)
            self._interrupt()

    def cancel_asked(self, queue: str, task_ids: list[str]) -> None:
        """Hear which task messages are not to be started."""
        self._intake.cancelled(self._by_name.get(queue), task_ids)

    def terminate_asked(self, queue: str, task_ids: list[str]) -> None:
        """Hear which runs are to be ended."""
        self._intake.cancelled(self._by_name.get(queue), task_ids, terminate=True)

    def _interrupt(self) -> None:
        waking = self.consumer.interrupt()
        if waking is not None:
            task = asyncio.ensure_future(waking)
            self._interrupts.add(task)
            task.add_done_callback(self._interrupts.discard)

    def fenced(self) -> None:
        """Hear that this consumer was declared dead: its deliveries are others' now."""
        self.table.beat_at_ms = 0
        self.consumer.name = ""  # nobody: what a read in flight still brings is given back
        while self.consumer.reclaimer.suspects:
            self._hand.settled(self.consumer.reclaimer.suspects.popleft())
        lost = list(self._hand.held.values())
        for run in lost:
            run.stop_reason = run.stop_reason or "fenced"
            if run.message is not None:  # else nothing runs: it could not be read, and its dead letter is on its way
                self.runner.context(run).lease_lost = True
        logger.error(
            "fenced: this consumer was taken for dead, or its registration was deleted; it starts anew",
            extra={"consumer": self._name, "held": len(lost)},
        )
        if self.on_fenced is not None:
            self.on_fenced()

    def rename_first(self, name: str) -> None:
        """Take the first consumer name; before `start`."""
        self._name = name

    def rename(self, name: str) -> None:
        """Go on under another consumer name."""
        self._name = self.consumer.name = name

    def drain(self) -> None:
        """Read no more and end when everything in hand has ended, or at the drain timeout (P8)."""
        self._draining.set()

    async def told_to_end(self) -> None:
        """Wait until `drain` or `cancel_now` is called."""
        await self._draining.wait()

    def cancel_now(self) -> None:
        """End at once: cancel what can be cancelled and give it back."""
        self._draining.set()
        self._cancelled.set()

    async def run(self) -> None:
        """Work until drained; then give back, settle or spool what is left, and close.

        Raises:
            WorkerCut: A body has cancelled the worker's own loops. In a process of its own nothing was given back or
                written, so that what had started is blamed; as a guest it drained first.
            Exception: Reading or settling failed in a way that was not foreseen; all the rest was done first.
        """
        reading = asyncio.create_task(self.consumer.run(), name="streamwork-consumer")
        settling = asyncio.create_task(self.settler.run(), name="streamwork-settler")
        check = SelfCheck(self.driver, self.table, self.consumer, self._hand, self.config.worker.slots)
        self._loops = [
            asyncio.create_task(check.stamp(), name="streamwork-stamp"),
            asyncio.create_task(check.audit(), name="streamwork-audit"),
        ]
        stop = asyncio.create_task(self._draining.wait(), name="streamwork-drain")
        cut: BaseException | None = None
        try:
            await asyncio.wait({reading, settling, stop}, return_when=asyncio.FIRST_COMPLETED)
            if any(loop.cancelled() for loop in (reading, settling, stop)):
                cut = WorkerCut("a body has cancelled the loops of its worker")
        except asyncio.CancelledError as error:
            cut = error if self.is_guest else WorkerCut("a body has cancelled the loops of its worker")
        if cut is None or self.is_guest:
            stop.cancel()
            self.consumer.stop()
            await self._finish(reading, settling)
        if cut is not None:
            raise cut
        for loop in (reading, settling):
            if not loop.cancelled():
                loop.result()  # raises what ended it before its time

    async def _finish(self, reading: asyncio.Task[None], settling: asyncio.Task[None]) -> None:
        self._interrupt()
        if settling.done():  # cancelled together with the program: what has ended is written all the same
            settling = asyncio.create_task(self.settler.run(), name="streamwork-settler")
        drain = Drain(self.executors, self.consumer, self.settler, self._hand, self._cancelled)
        if not await drain.run(reading, settling, self.config.worker.drain_timeout_s):
            self.unwritten = self.settler.unsent
            if self.unwritten:
                self.spooled = spooling.spool_unsent(self.settler, self._spool_folder, self.app.name)
        for task in (reading, settling, *self._loops):
            task.cancel()
        await asyncio.gather(reading, settling, *self._loops, return_exceptions=True)
        await self.executors.close()
        await self.close()

    async def close(self) -> None:
        """Leave the lifespan and close the connections; `run` does so itself.

        Raises:
            BaseException: What the lifespan raised at its end, to a program in whose loop this worker is a guest.
        """
        await self._notices.close()
        await self.telling.close()
        await self._lifespan.leave()
        await self._reading.close()
        await self.driver.close()
        if self.is_guest and self._lifespan.error is not None:
            raise self._lifespan.error

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand, nothing waits to be written and the last read found nothing."""
        is_free = not self._hand.count and not self.settler.unsent
        return is_free and self.consumer.is_idle and not self.consumer.reclaimer.suspects
