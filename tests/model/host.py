"""A supervisor of the model: the product's own keeper and services, whose ticks the scheduler gives out."""

from __future__ import annotations

from streamwork.errors import StoreError
from streamwork.worker.healing import Restorer
from streamwork.worker.homes import Address
from streamwork.worker.keeper import Keeper
from streamwork.worker.liveness import Beat, Reaper
from streamwork.worker.registrar import Registrar
from streamwork.worker.upkeep import Maintainer, Promoter
from tests.model.parts import CONFIG, NAMESPACE, QUEUE, Party
from tests.model.process import Process

_ADDRESS = Address(NAMESPACE, (QUEUE,), CONFIG)


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
        begin = lambda: self.world.spawn(self, self._take_in(process), f"{self.name_here}.add")
        if self.world.files:
            self.world.spawn(process, process.recover(begin), f"{process.name_here}.recover")
        else:
            begin()
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
        mode, started = "dead", process.member.started_by_queue()
        if process.has_left:
            mode, started = "leave", {}
        self.world.spawn(self, self.hand_over(process.member, mode, "killed", started), f"{self.name_here}.handover")
