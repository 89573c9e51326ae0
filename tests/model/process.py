"""A worker process of the model: the product's own parts over model drivers, and bodies that the scheduler ends."""

from __future__ import annotations

import asyncio

from streamwork.errors import StoreError
from streamwork.worker import spooling
from streamwork.worker.bounds import Bounds
from streamwork.worker.consumer import Consumer
from streamwork.worker.delivery import QueueSide
from streamwork.worker.drain import Drain, Hand
from streamwork.worker.intake import Intake
from streamwork.worker.runner import Runner
from streamwork.worker.selfcheck import SelfCheck
from streamwork.worker.settle import Settler
from streamwork.worker.slot_table import SlotTable
from streamwork.worker.worker import Worker
from tests.model.parts import APP, CONFIG, DRAIN_S, NAMESPACE, QUEUE, Party
from tests.model.server import KEYS


class Bodies:
    """Stands where `Executors` stands: a body begins when a row is free and ends when the scheduler says so."""

    cancellable = False

    def __init__(self, process, intake):
        self._process = process
        self._intake = intake
        self.running = []
        self.queued = 0

    def submit(self, run):
        """Begin a body."""
        self._intake.runner.start(run, self._intake.rows.popleft())
        self.running.append(run)
        self._process.world.began(self._process, run)

    def end(self, run, how):
        """End a body: S returned, F failed, R raised, and is tried again, K skipped."""
        self.running.remove(run)
        run.is_over = True
        runner = self._intake.runner
        if how == "S":
            self._intake.freed(run)
            runner.ended(run, b"\xc0")
        else:
            runner.raised(run, self._process.world.errors[how])
            self._intake.freed(run)

    def cancel_run(self, run, *, terminate):
        """A body that runs is ended where that was asked for."""
        if terminate and run in self.running:
            self.running.remove(run)
            run.is_over, run.stop_reason = True, "cancelled"
            self._intake.freed(run)
            self._intake.runner.cancelled(run)

    def flush(self):
        """Nothing is held back."""

    def cancel(self):
        """A drain's deadline: what runs is given back."""
        for run in self.running:
            run.stop_reason = "released"
            self._intake.freed(run)
        self.running = []


# Shared memory is dear to make, and every world needs some.
_tables = []


class Process(Party, Worker):
    """One worker process: the product's `Worker`, whose bodies and connections are the model's."""

    def __init__(self, world, host, number, tags):
        Party.__init__(self, world, f"{host.name_here}c{number}")
        self.host = host
        self.member = Member(self, f"{self.name_here}-1")
        self.app, self.config, self.tags = APP, CONFIG, tags
        self.table = _tables.pop() if _tables else SlotTable(CONFIG.worker.slots)
        self.on_fenced = None
        self._queues = [QueueSide(KEYS, 0)]
        self._by_name = {QUEUE: self._queues[0]}
        self._name = self.member.name
        self._hand = Hand()
        self._intake = Intake(self._hand, self.table, CONFIG.worker.slots, self._told)
        self._interrupts = set()
        self._draining, self._cancelled = asyncio.Event(), asyncio.Event()
        self._seen = set()
        deadline_s = CONFIG.client.deadline_s
        self.driver = self.make_driver("driver", deadline_s)
        self._reading = self.make_driver("reading", CONFIG.worker.block_s + deadline_s)
        self.audited_ms = world.steady_ms
        self.has_left, self.begun = False, {}
        self._reader = self._writer = None
        self._make()

    def _make(self):
        intake, worker = self._intake, CONFIG.worker
        self.settler = Settler(self.driver, intake.settled)
        self.runner = intake.runner = Runner(APP.tasks, self.table, self.settler.add)
        self.executors = intake.executors = Bodies(self, intake)
        bounds = Bounds(worker, self._hand, self.settler, self.executors, 0)
        self.consumer = intake.consumer = Consumer(
            self._name, self._queues, self._reading, self.driver, self.table, bounds.to_read, intake.accept
        )
        self.consumer.half_ttl_ms = CONFIG.liveness.ttl_ms // 2
        self.consumer.in_hand = lambda: intake.blamable
        self.consumer.knows = self._hand.knows
        self.consumer.free_slots = bounds.free
        self.check = SelfCheck(self.driver, self.table, self.consumer, self._hand, worker.slots)

    def recycle(self):
        """Give its table to the next world."""
        for row in range(self.table.rows):
            self.table.clear(row)
        self.table.beat_at_ms = self.table.loop_at_ms = self.table.read_at_ms = self.table.free_slots = 0
        _tables.append(self.__dict__.pop("table"))

    @property
    def may_leave(self):
        """Whether it works, and was not told to end."""
        return self._reader is not None and not (self.is_dead or self.is_paused or self.member.is_leaving)

    @property
    def serves_all(self):
        """Whether it lives and reads every lane of its world."""
        return not self.is_dead and self.tags == self.world.shape.all_tags

    def _told(self, run, item, committed):
        self.world.told(self, run, item, committed)

    def begin(self):
        """Start its loops."""
        self._reader = self.world.spawn(self, self.consumer.run(), f"{self.name_here}.read")
        self._writer = self.world.spawn(self, self.settler.run(), f"{self.name_here}.settle")

    async def recover(self, then):
        """What `Worker.start` does about the spool, tried again as a supervisor would; then go on."""
        while True:
            try:
                await spooling.settle_spooled(self.settler, None, NAMESPACE)
            except StoreError:
                await asyncio.sleep(0.5)
            else:
                break
        then()

    def leave(self):
        """SIGTERM: drain, and end."""
        self.member.is_leaving = True
        self.consumer.stop()
        self._interrupt()
        self.world.spawn(self, self._leave(), f"{self.name_here}.leave")

    async def _leave(self):
        drain = Drain(self.executors, self.consumer, self.settler, self._hand, self._cancelled)
        if not await drain.run(self._reader, self._writer, DRAIN_S) and self.settler.unsent:
            spooling.spool_unsent(self.settler, None, NAMESPACE)
        self.has_left = True
        self.die()

    def audit(self):
        """One turn of the audit of its own list."""
        self.audited_ms = self.world.steady_ms
        self.world.spawn(self, self._audit(), f"{self.name_here}.audit")

    async def _audit(self):
        try:
            await self.check._forget_cancelled()
            self._seen = await self.check._audit(self._seen)
        except StoreError:
            self._seen = set()


class Channel:
    """What a supervisor says to its process; heard at once, or when the process goes on."""

    def __init__(self, process):
        self._process = process

    def send(self, kind, *values):
        """Say something."""
        process = self._process
        if process.is_dead:
            return
        if process.is_paused:
            process.stalled.append((lambda message: self._heard(*message), (kind, *values), self))
        else:
            self._heard(kind, *values)

    def _step(self, go, value):
        go(value)

    def _heard(self, kind, *values):
        process = self._process
        before, process.world.current = process.world.current, process
        if kind == "fenced":
            process.fenced()
        elif kind == "rename":
            process.rename(*values)
        elif kind == "lanes":
            process.lanes_changed(*values)
        elif kind == "paused":
            process.paused_changed(*values)
        elif kind == "returned":
            process.lane_returned(*values)
        elif kind == "cancel":
            process.cancel_asked(*values)
        elif kind == "terminate":
            process.terminate_asked(*values)
        process.world.current = before


class Member:
    """A process as its supervisor sees it: what `Replica` is, without a fork."""

    def __init__(self, process, name):
        self.process = process
        self.name = name
        self.channel = Channel(process)
        self.on_fenced = None
        self.is_leaving = False
        self.home = None

    @property
    def is_dead(self):
        """Whether the supervisor may know that it is."""
        return self.process.is_dead

    @property
    def claimed_at_ms(self):
        """When it last had an answer to a read; 0, since only people read what is told of it."""
        return 0

    def new_name(self):
        """Take the next name."""
        stem, number = self.name.rsplit("-", 1)
        self.name = f"{stem}-{int(number) + 1}"

    def registration(self):
        """What Redis is told; nobody reads it here."""
        return b"{}"

    def started_by_queue(self):
        """What it had started, as its table says."""
        started = [(one.lane, one.entry) for one in self.process.table.started()]
        return {QUEUE: started} if started else {}

    def beaten(self, at_ms):
        """Leave the beat where the process sees it."""
        self.process.table.beat_at_ms = at_ms

    def fenced(self):
        """Hear that it was declared dead."""
        self.process.table.beat_at_ms = 0
        if self.on_fenced is not None:
            self.on_fenced()

    def lanes_changed(self, queue, lanes, fleet):
        """Pass on which lanes there are."""
        self.channel.send("lanes", queue, list(lanes), fleet)

    def paused_changed(self, queue, marks):
        """Pass on what is paused."""
        self.channel.send("paused", queue, list(marks))

    def lane_returned(self, queue, lane):
        """Pass on that a lane holds entries to adopt."""
        self.channel.send("returned", queue, lane)

    def cancel_asked(self, queue, task_ids):
        """Pass on what is not to be started."""
        self.channel.send("cancel", queue, task_ids)

    def terminate_asked(self, queue, task_ids):
        """Pass on which runs are to be ended."""
        self.channel.send("terminate", queue, task_ids)
