"""Keep consumers alive in Redis and see to the dead: the services of a supervisor, one set per queue.

They run in a process that runs no task, so no body can starve them (rule 11, fault class "heartbeat starved").
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import Config
from streamwork.outage import Outage
from streamwork.service import Service
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.worker.control import Control
from streamwork.worker.healing import Restorer
from streamwork.worker.liveness import Beat, Reaper
from streamwork.worker.member import Member, QueueFacts
from streamwork.worker.pace import on_duty
from streamwork.worker.scheduler import Scheduler
from streamwork.worker.sweeper import Sweeper
from streamwork.worker.teller import Teller
from streamwork.worker.unholder import Unholder
from streamwork.worker.upkeep import Maintainer, Promoter

logger = logging.getLogger(__name__)


class Keeper:
    """All services for the queues of one supervisor.

    Args:
        namespace: The app's.
        config: Settings.
        queues: Queue names.
        make_driver: Makes a driver with the given deadline, seconds.
        me: Name of the supervisor.
        outage: Told when Redis is away; None = it is logged.
    """

    def __init__(
        self, namespace: str, config: Config, queues: list[str], make_driver: Callable[[float], AsyncDriver], me: str,
        outage: Outage | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self._outage = outage or Outage()
        # A connection that has silently died must be replaced, and the beat sent again, before the life is over.
        self.driver = make_driver(min(config.client.deadline_s, config.liveness.ttl_s / 3))
        self.queues = [QueueFacts(QueueKeys(namespace, queue)) for queue in queues]
        self.members: dict[str, Member] = {}
        self.teller = Teller(self.driver, namespace, me)
        self._make_driver = make_driver
        self._me = me
        self._services: list[Service] = []
        self._promoters: dict[str, Promoter] = {}
        self._maintainers: dict[str, Maintainer] = {}
        self._restorers: dict[str, Restorer] = {}
        self._schedulers: dict[str, Scheduler] = {}
        self._unholders: dict[str, Unholder] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._control_drivers: list[AsyncDriver] = []

    async def start(self) -> None:
        """Start the services; raises StoreError when Redis cannot be reached now."""
        await self.driver.connect()
        self._beat = Beat(self.driver, self.config, self.queues, self.members)
        self._services = [self._beat, self.teller]
        self._outage.listeners.append(self.teller.on_outage)
        for queue in self.queues:
            queue.tell = self.teller.tell
            await self._refresh(queue)
            promoter = self._promoters[queue.keys.queue] = Promoter(self.driver, queue)
            restorer = self._restorers[queue.keys.queue] = Restorer(self.driver, queue)
            unholder = self._unholders[queue.keys.queue] = Unholder(self.driver, queue)
            reaper = Reaper(self.driver, self.config, queue, self.members, self._me)
            scheduler = self._schedulers[queue.keys.queue] = Scheduler(self.driver, queue)
            maintainer = self._maintainers[queue.keys.queue] = Maintainer(self.driver, self.config, queue)
            sweeper = Sweeper(self.driver, queue)
            self._services += [promoter, restorer, unholder, scheduler, reaper, maintainer, sweeper]
            self._listen(queue)
        for service in self._services:
            service.outage = self._outage
        self._loops += [
            asyncio.create_task(service.run(), name=f"streamwork-{service.name}") for service in self._services
        ]

    def _listen(self, queue: QueueFacts) -> None:
        driver = self._make_driver(Control.BLOCK_MS / 1000 + 5)
        self._control_drivers.append(driver)

        def heard(event: str, value: str) -> None:
            self._heard(queue, event, value)

        async def refresh() -> None:
            await self._refresh(queue)

        control = Control(driver, queue.keys, heard, refresh)
        self._loops.append(asyncio.create_task(on_duty(control.run), name=f"streamwork-control {queue.keys.queue}"))

    def _heard(self, queue: QueueFacts, event: str, value: str) -> None:
        name = queue.keys.queue
        if event in ("lane", "lost"):
            if event == "lost":
                facts = {"queue": name, "lane": value}
                text = "data lost: a lane was deleted with all that waited or ran on it, and is made anew"
                logger.error(text, extra=facts)
                if queue.on_duty:  # each supervisor hears of it, and one tells
                    queue.tell("queue.lane_lost", queue=name, lane=value)
                self._maintainers[name].nudge()  # what was on it is counted until then
            queue.hear(value)
            self._tell_lanes(queue)
        elif event == "returned":
            self._restorers[name].nudge()
            for member in list(self.members.values()):
                member.lane_returned(name, value)
        elif event in ("pause", "resume"):
            self._paused(queue, queue.paused | {value} if event == "pause" else queue.paused - {value})
        elif event == "schedules":
            self._schedulers[name].nudge()
        elif event == "due":
            self._promoters[name].nudge()
        elif event == "cancel":
            for member in list(self.members.values()):
                member.cancel_asked(name, [value])
        elif event == "terminate":
            for member in list(self.members.values()):
                member.terminate_asked(name, [value])

    def _paused(self, queue: QueueFacts, marks: set[str]) -> None:
        is_told, queue.paused = marks == queue.paused, marks
        for member in [] if is_told else list(self.members.values()):
            member.paused_changed(queue.keys.queue, sorted(marks))
        if queue.keys.queue in self._unholders:
            self._unholders[queue.keys.queue].nudge()

    def _tell_lanes(self, queue: QueueFacts) -> None:
        for member in list(self.members.values()):
            member.lanes_changed(queue.keys.queue, queue.lanes, queue.fleet)

    async def _refresh(self, queue: QueueFacts) -> None:
        keys, since = queue.keys, queue.signals
        lanes, returned, cancelled, fleet, paused = await self.driver.run_all([
            plain("HKEYS", keys.lanes), plain("SMEMBERS", keys.returned), plain("HGETALL", keys.cancelled),
            plain("HLEN", keys.consumers), plain("HKEYS", keys.paused),
        ])  # fmt: skip
        self._paused(queue, {mark.decode(errors="replace") for mark in paused})
        queue.lanes = sorted({*(lane.decode() for lane in lanes), *queue.heard_since(since)})
        queue.fleet = fleet
        self._tell_lanes(queue)
        marks = zip(cancelled[::2], cancelled[1::2], strict=True)
        ended = [task_id.decode() for task_id, by in marks if by.endswith(scripts.TERMINATE)]
        for member in list(self.members.values()):
            for lane in returned:
                member.lane_returned(keys.queue, lane.decode())
            if cancelled:
                member.cancel_asked(keys.queue, [task_id.decode() for task_id in cancelled[::2]])
            if ended:
                member.terminate_asked(keys.queue, ended)
        for service in (
            self._promoters.get(keys.queue),
            self._restorers.get(keys.queue),
            self._schedulers.get(keys.queue),
        ):
            if service is not None:
                service.nudge()

    @property
    def is_beating(self) -> bool:
        """Whether the last beat was answered within the last TTL."""
        return SYSTEM_CLOCK.steady_ms() - self._beat.beaten_at_ms < self.config.liveness.ttl_ms

    @property
    def is_late(self) -> bool:
        """Whether a beat is overdue: Redis is away, or about to be found so."""
        return SYSTEM_CLOCK.steady_ms() - self._beat.beaten_at_ms > 2 * self.config.liveness.beat_s * 1000

    def tell(self, member: Member) -> None:
        """Tell one member what there is, once it listens."""
        for queue in self.queues:
            if queue.paused:  # first, or it would read what it sees
                member.paused_changed(queue.keys.queue, sorted(queue.paused))
            member.lanes_changed(queue.keys.queue, queue.lanes, queue.fleet)
            for lane in queue.lanes:
                member.lane_returned(queue.keys.queue, lane)

    def declare(self, schedules: dict[str, dict[str, bytes]]) -> None:
        """Take over the schedules that an app declares: queue to name to record."""
        for queue, scheduler in self._schedulers.items():
            scheduler.declare(schedules.get(queue, {}))

    def promote(self, queue: str) -> None:
        """Let the promoter of a queue look now."""
        self._promoters[queue].nudge()

    async def add(self, member: Member, registration: bytes) -> None:
        """Register a consumer in every queue, then keep it alive and tell it what there is."""
        sent_at_ms = SYSTEM_CLOCK.steady_ms()
        for queue in self.queues:
            await self.driver.run(scripts.register(queue.keys, member.name, registration, self.config.liveness.ttl_ms))
        self.members[member.name] = member
        member.beaten(sent_at_ms)
        self._beat.beaten_at_ms = sent_at_ms
        self.teller.tell("worker.started", worker=member.name, queues=[queue.keys.queue for queue in self.queues])
        for queue in self.queues:
            await self._refresh(queue)

    async def remove(
        self,
        member: Member,
        *,
        mode: str,
        evidence: str = "",
        started: dict[str, list[tuple[str, bytes]]] | None = None,
    ) -> int:
        """Take a consumer off the list and mark what it still owns for adoption.

        Args:
            member: Who ends.
            mode: ``leave`` (in order) or ``dead`` (its process died; what it had started counts as crashed).
            evidence: How it died.
            started: By queue, (lane, entry) of what it had started.

        Returns:
            Entries marked.
        """
        self.members.pop(member.name, None)
        self.teller.tell("worker.stopped" if mode == "leave" else "worker.died", worker=member.name, detail=evidence)
        marked = 0
        for queue in self.queues:
            blamed = (started or {}).get(queue.keys.queue, [])
            await self._refresh(queue)
            for lane in queue.lanes:
                entries = [entry for lane_name, entry in blamed if lane_name == lane]
                while True:
                    moved = await self.driver.run(
                        scripts.take(queue.keys, lane, member.name, mode=mode, evidence=evidence, started=entries)
                    )
                    marked += max(moved, 0)
                    if moved < 100:
                        break
                await self.driver.run(scripts.drop_consumer(queue.keys, lane, member.name))
            await self.driver.run_all([
                plain("HDEL", queue.keys.consumers, member.name), plain("DEL", queue.keys.alive(member.name)),
                plain("DEL", queue.keys.claimed(member.name)),
            ])  # fmt: skip
        return marked

    async def stop(self) -> None:
        """Stop the services and close the connections."""
        if self.teller.on_outage in self._outage.listeners:
            self._outage.listeners.remove(self.teller.on_outage)
            await self.teller.last()
        for service in self._services:
            service.stop()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for service in self._services:
            service.leave()
        for driver in (self.driver, *self._control_drivers):
            await driver.close()
