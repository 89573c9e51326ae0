"""The processes of the model: supervisors and workers made of the product's own parts, over model drivers."""

from __future__ import annotations

import asyncio
from collections import deque

from streamwork import Streamwork
from streamwork.config import Config
from streamwork.errors import StoreError
from streamwork.settings import ClientConfig, KeepConfig, WorkerConfig
from streamwork.worker.bounds import Bounds
from streamwork.worker.consumer import Consumer
from streamwork.worker.delivery import QueueSide
from streamwork.worker.drain import Drain, Hand
from streamwork.worker.healing import Restorer
from streamwork.worker.homes import Address
from streamwork.worker.intake import Intake
from streamwork.worker.keeper import Keeper
from streamwork.worker.liveness import Beat, Reaper
from streamwork.worker.registrar import Registrar
from streamwork.worker.runner import Runner
from streamwork.worker.selfcheck import SelfCheck
from streamwork.worker.settle import Settler
from streamwork.worker.slot_table import SlotTable
from streamwork.worker.upkeep import Maintainer, Promoter
from streamwork.worker.worker import Worker
from tests.model.driver import ModelDriver
from tests.model.server import KEYS

NAMESPACE, QUEUE = KEYS.namespace, KEYS.queue
# Shorter than the defaults, in the same order: what is late, what is looked for again, what is history.
CONFIG = Config(
    worker=WorkerConfig(slots=2, queues=(QUEUE,)), client=ClientConfig(deadline_s=2.0), keep=KeepConfig(history_s=2.0)
)
AUDIT_MS = 5_000
_ADDRESS = Address(NAMESPACE, (QUEUE,), CONFIG)
APP = Streamwork(NAMESPACE, "redis://127.0.0.1:1/0")


@APP.task(name="work", queue=QUEUE)
async def work():
    """Whatever it does is the scheduler's choice."""


# Parts that belong to one party; what the whole process shares stays as it is.
_OURS = ("streamwork.worker", "streamwork.broker", "tests.model.parts")


class Party:
    """What has threads and a fate of its own: a process, a supervisor, a client."""

    def __init__(self, world, name):
        self.world = world
        self.name_here = name
        self.is_dead = self.is_paused = False
        self.stalled = deque()
        self.drivers = []

    def make_driver(self, role, deadline_s):
        """Return a connection of this party."""
        driver = ModelDriver(self.world, f"{self.name_here}.{role}", deadline_s * 1000)
        self.drivers.append(driver)
        self.world.drivers[driver.name] = driver
        return driver

    def die(self):
        """SIGKILL: no code runs any more; what was sent may still be executed."""
        self.is_dead = True
        self.stalled.clear()
        for driver in self.drivers:
            driver.is_orphan = True
            driver.answered.clear()

    def tear(self):
        """Break the circles of references, when the world is over."""
        for driver in self.drivers:
            driver.__dict__.clear()
        for part in list(self.__dict__.values()):
            if getattr(part, "__dict__", None) and part.__class__.__module__.startswith(_OURS):
                part.__dict__.clear()
        self.__dict__.clear()

    def wake(self):
        """SIGCONT: what has come meanwhile is heard before any deadline."""
        self.is_paused = False
        for driver in self.drivers:
            while driver.answered:
                self.world.deliver(driver)
        while self.stalled and not self.is_paused:
            go, value, thread = self.stalled.popleft()
            thread._step(go, value)


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
    def serves_all(self):
        """Whether it lives and reads every lane of its world."""
        return not self.is_dead and self.tags == self.world.shape.all_tags

    def _told(self, run, item, committed):
        self.world.told(self, run, item, committed)

    def begin(self):
        """Start its loops."""
        self._reader = self.world.spawn(self, self.consumer.run(), f"{self.name_here}.read")
        self._writer = self.world.spawn(self, self.settler.run(), f"{self.name_here}.settle")

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
        elif kind == "returned":
            process.lane_returned(*values)
        elif kind == "cancel":
            process.cancel_asked(*values)
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

    def lane_returned(self, queue, lane):
        """Pass on that a lane holds entries to adopt."""
        self.channel.send("returned", queue, lane)

    def cancel_asked(self, queue, task_ids):
        """Pass on what is not to be started."""
        self.channel.send("cancel", queue, task_ids)


class Host(Party):
    """A supervisor with its services; the real `Keeper`, whose ticks the scheduler gives out."""

    def __init__(self, world, number):
        super().__init__(world, f"h{number}")
        self.keeper = Keeper(
            NAMESPACE, CONFIG, [QUEUE], lambda deadline_s: self.make_driver("driver", deadline_s), self.name_here
        )
        keeper, (self.queue,) = self.keeper, self.keeper.queues
        driver = keeper.driver
        promoter, restorer = Promoter(driver, self.queue), Restorer(driver, self.queue)
        keeper._beat = Beat(driver, CONFIG, keeper.queues, keeper.members)
        keeper._promoters, keeper._restorers = {QUEUE: promoter}, {QUEUE: restorer}
        self.services = {
            "beat": keeper._beat,
            "reaper": Reaper(driver, CONFIG, self.queue, keeper.members, self.name_here),
            "promoter": promoter,
            "restorer": restorer,
            "maintainer": Maintainer(driver, CONFIG, self.queue),
        }
        self.registrar = Registrar(self, self._start, burst=False)
        self.ticking = {}
        self.cursor, self.heard = 0, 0
        self.processes = []

    async def of(self, address):
        """What `Homes` does: this one keeper is the home of all its processes."""
        return self

    def _start(self, coroutine):
        self.world.spawn(self, coroutine, f"{self.name_here}.rename")

    async def hand_over(self, member, mode, evidence, started):
        """What `Home` does for a process that ended."""
        try:
            await self.keeper.remove(member, mode=mode, evidence=evidence, started=started)
        except StoreError:
            pass

    def begin_with(self, process):
        """Take a process in, as `Keeper.add` leaves it."""
        member = process.member
        self.processes.append(process)
        self.keeper.members[member.name] = member
        member.beaten(self.world.steady_ms)
        member.on_fenced = lambda: self.world.spawn(
            self, self.registrar._rename(self, member), f"{self.name_here}.rename"
        )

    async def _take_in(self, process):
        if await self.registrar.register(process.member, _ADDRESS, lambda: False):
            self.keeper.tell(process.member)
            process.begin()

    def fork(self, tags=frozenset()):
        """Start one more process."""
        process = Process(self.world, self, self.world.number(), tags)
        process.host = self
        self.processes.append(process)
        self.world.processes.append(process)
        self.world.spawn(self, self._take_in(process), f"{self.name_here}.add")
        return process

    async def refreshed(self):
        """Ask for what was missed while nothing was heard."""
        try:
            await self.keeper._refresh(self.queue)
        except StoreError:
            self.cursor = None

    def tick(self, name):
        """Begin one tick of a service, unless the last one is under way."""
        thread = self.ticking.get(name)
        if thread is not None and not thread.is_done:
            return False
        self.ticking[name] = self.world.spawn(self, self.services[name].tick(), f"{self.name_here}.{name}")
        return True

    def see_off(self, process):
        """SIGCHLD: hand over what a dead process had."""
        self.processes.remove(process)
        started = process.member.started_by_queue()
        self.world.spawn(self, self.hand_over(process.member, "dead", "killed", started), f"{self.name_here}.handover")


__all__ = ["APP", "AUDIT_MS", "CONFIG", "KEYS", "Drain", "Host", "Party", "Process"]
