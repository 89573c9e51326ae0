"""Keep consumers alive in Redis and see to the dead: the services of a supervisor, one set per queue.

They run in a process that runs no task, so no body can starve them (rule 11, fault class "heartbeat starved").
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from streamwork.broker.resend import backoff_s
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import Config
from streamwork.errors import StoreError
from streamwork.service import Service
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.keys import RETURNED_CONSUMER, QueueKeys

logger = logging.getLogger(__name__)


class Member(Protocol):
    """A consumer that is kept alive, as the keeper sees it."""

    name: str

    def beaten(self, at_ms: int) -> None:
        """Hear that the beat sent at this steady instant was good."""

    def fenced(self) -> None:
        """Hear that this consumer was declared dead: what it holds is lost."""

    def lanes_changed(self, queue: str, lanes: list[str], fleet: int) -> None:
        """Hear which lanes a queue has, and how many consumers it has."""

    def lane_returned(self, queue: str, lane: str) -> None:
        """Hear that a lane holds entries to adopt."""

    def cancel_asked(self, queue: str, task_ids: list[str]) -> None:
        """Hear that task messages were marked as cancelled."""


class QueueFacts:
    """What the services of one queue share."""

    def __init__(self, keys: QueueKeys) -> None:
        self.keys = keys
        self.lanes: list[str] = []
        self.fleet = 0
        self.on_duty = False


class Beat(Service):
    """Renew every consumer's liveness in every queue; four beats fit into one TTL."""

    name = "beat"

    def __init__(self, driver: AsyncDriver, config: Config, queues: list[QueueFacts], members: dict[str, Member]) -> None:
        super().__init__()
        self._driver = driver
        self._ttl_ms = config.liveness.ttl_ms
        self.interval_s = config.liveness.beat_s
        self._queues = queues
        self._members = members
        self.beaten_at_ms = 0

    async def tick(self) -> float:
        """Beat once for everyone; a lapsed one is revived or told that it is fenced."""
        members = list(self._members.values())
        pairs = [(member, queue) for member in members for queue in self._queues]
        sent_at_ms = SYSTEM_CLOCK.steady_ms()
        alive = await self._driver.run_all([scripts.beat(queue.keys, member.name, self._ttl_ms) for member, queue in pairs])
        self.beaten_at_ms = sent_at_ms
        fenced: set[str] = set()
        for (member, queue), renewed in zip(pairs, alive, strict=True):
            if not renewed and member.name not in fenced:
                answer = await self._driver.run(scripts.revive(queue.keys, member.name, self._ttl_ms))
                logger.warning("liveness had lapsed", extra={"consumer": member.name, "queue": queue.keys.queue, "now": answer})
                if answer == "fenced":
                    fenced.add(member.name)
        for member in members:
            if member.name in fenced:
                self._members.pop(member.name, None)
                member.fenced()
            else:
                member.beaten(sent_at_ms)
        return self.interval_s


class Reaper(Service):
    """Find dead consumers and mark their entries for adoption; one at a time, others stand by (rules 13–16).

    If it dies midway, what it had marked is adopted and the rest is found by the next; two at once do no harm, since
    the script that takes checks liveness itself.
    """

    name = "reaper"
    # Every so many ticks also look for consumers that own entries without being registered: a fenced one that read again.
    FULL_EVERY = 16

    def __init__(self, driver: AsyncDriver, config: Config, queue: QueueFacts, members: dict[str, Member], me: str) -> None:
        super().__init__()
        self._driver = driver
        self._liveness = config.liveness
        self._block_ms = int(config.worker.block_s * 1000)
        self._queue = queue
        self._members = members
        self._me = me
        self.interval_s = config.liveness.reap_s
        self._ticks = 0
        self._taken: dict[str, int] = {}

    async def tick(self) -> float:
        """Renew the pulse and take who is dead; answers when to come again."""
        keys, liveness = self._queue.keys, self._liveness
        pulse = await self._driver.run(scripts.pulse(keys, self._me, liveness.pulse_ms, liveness.ttl_ms, liveness.near_ms))
        self._queue.on_duty = pulse.on_duty
        if not pulse.on_duty:
            return max(0.02, (pulse.left_ms - liveness.near_ms * 0.7) / 1000)
        registered: list[bytes] = await self._driver.run(plain("HKEYS", keys.consumers))
        self._queue.fleet = len(registered)
        if pulse.lapsed:
            logger.info("pulse had lapsed, nobody is taken until grace is over", extra={"queue": keys.queue})
            return self.interval_s
        others = [name.decode() for name in registered if name.decode() not in self._members]
        dead = await self._without_liveness(others)
        self._ticks += 1
        if self._ticks % self.FULL_EVERY == 1 or self._taken:
            dead += await self._unregistered({*others, *self._members})
        for consumer in dead:
            await self._take(consumer)
        await self._drop_emptied()
        return self.interval_s

    async def _without_liveness(self, consumers: list[str]) -> list[str]:
        if not consumers:
            return []
        found: list[Any] = await self._driver.run(plain("MGET", *map(self._queue.keys.alive, consumers)))
        return [name for name, value in zip(consumers, found, strict=True) if value is None]

    async def _unregistered(self, registered: set[str]) -> list[str]:
        names: set[str] = set()
        for lane in self._queue.lanes:
            try:
                rows: list[list[Any]] = await self._driver.run(plain("XINFO", "CONSUMERS", self._queue.keys.lane(lane), "workers"))
            except StoreError:
                continue  # the lane or its group is gone; readers heal it
            for row in rows:
                facts = dict(zip(row[::2], row[1::2], strict=True))
                name = facts[b"name"].decode()
                if name not in registered and name != RETURNED_CONSUMER:
                    if facts[b"pending"]:
                        names.add(name)
                    else:
                        self._taken.setdefault(name, SYSTEM_CLOCK.steady_ms())
        return await self._without_liveness(sorted(names))

    async def _take(self, consumer: str) -> None:
        marked = 0
        for lane in self._queue.lanes:
            while True:
                answer = await self._driver.run(
                    scripts.take(self._queue.keys, lane, consumer, mode="reap", evidence=f"worker {consumer} vanished")
                )
                if answer < 0:
                    return  # in grace, or it is alive after all
                marked += answer
                if answer < 100:
                    break
        if not self._queue.lanes:
            await self._driver.run(plain("HDEL", self._queue.keys.consumers, consumer))
        self._taken[consumer] = SYSTEM_CLOCK.steady_ms()
        logger.warning("dead consumer taken", extra={"queue": self._queue.keys.queue, "consumer": consumer, "entries": marked})

    async def _drop_emptied(self) -> None:
        # Not before one BLOCK after death: a blocked read of the dead could still make the name again (rule 13).
        now_ms = SYSTEM_CLOCK.steady_ms()
        for consumer, at_ms in list(self._taken.items()):
            if now_ms - at_ms > self._block_ms + 1_000:
                for lane in self._queue.lanes:
                    await self._driver.run(scripts.drop_consumer(self._queue.keys, lane, consumer))
                del self._taken[consumer]


class Promoter(Service):
    """Move due task messages to their lanes; sleeps exactly until the next one (rule 26)."""

    name = "promoter"
    BATCH = 200
    # What a lost signal costs at most; a signal is an entry in a stream, so this is for the case that it was trimmed.
    interval_s = 30.0

    def __init__(self, driver: AsyncDriver, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._queue = queue

    async def _learn_lanes(self) -> None:
        # The message itself says where it belongs; the script registers the lane when it makes it.
        keys = self._queue.keys
        ids = await self._driver.run(plain("ZRANGE", keys.due, 0, self.BATCH - 1))
        bodies = await self._driver.run(plain("HMGET", keys.due_body, *ids)) if ids else []
        named = {body.partition(b"\n")[0].decode() for body in bodies if body}
        self._queue.lanes = sorted({*self._queue.lanes, *named})

    async def tick(self) -> float:
        """Promote what is due; answers how long until the next is."""
        done = await self._driver.run(scripts.promote(self._queue.keys, self._queue.lanes, self.BATCH))
        if done.unknown_lane:
            await self._learn_lanes()
            return 0.05
        if done.moved == self.BATCH:
            return 0.0
        if done.next_at_ms is None:
            return self.interval_s
        return min(self.interval_s, max(0.001, (done.next_at_ms - SYSTEM_CLOCK.now_ms()) / 1000 + 0.001))


class Maintainer(Service):
    """Keep each lane's low mark, counters and history, and the journal's age (rules 8, 30, 33); only on duty."""

    name = "maintainer"
    interval_s = 20.0
    TRIMMED_AT_ONCE = 10_000

    def __init__(self, driver: AsyncDriver, config: Config, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._history_ms = int(config.keep.history_s * 1000)
        self._queue = queue

    async def tick(self) -> float | None:
        """Keep every lane once."""
        if not self._queue.on_duty:
            return None
        oldest = str(SYSTEM_CLOCK.now_ms() - self._history_ms) if self._history_ms else "0"
        for lane in self._queue.lanes:
            await self._driver.run(scripts.maintain(self._queue.keys, lane, oldest, self.TRIMMED_AT_ONCE))
        if self._history_ms:
            await self._driver.run(plain("XTRIM", self._queue.keys.journal, "MINID", "~", oldest, "LIMIT", self.TRIMMED_AT_ONCE))
        return None


class Control:
    """Hear the signals of one queue: new lanes, returned entries, earlier due times, cancellations.

    Args:
        driver: A connection of its own, since its reads block.
        heard: Called with (event, value) for each signal.
        refresh: Awaited at each (re)connection, since signals may have been missed.
    """

    BLOCK_MS = 10_000

    def __init__(self, driver: AsyncDriver, keys: QueueKeys, heard: Callable[[str, str], None], refresh: Callable[[], Any]) -> None:
        self._driver = driver
        self._keys = keys
        self._heard = heard
        self._refresh = refresh

    async def run(self) -> None:
        """Listen until cancelled."""
        failures = 0
        while True:
            try:
                await self._listen()
            except StoreError:
                failures += 1
                await asyncio.sleep(backoff_s(min(failures, 6)))
            else:
                failures = 0

    async def _listen(self) -> None:
        newest: list[Any] = await self._driver.run(plain("XREVRANGE", self._keys.control, "+", "-", "COUNT", 1))
        cursor: bytes | str = newest[0][0] if newest else "0-0"
        await self._refresh()
        server = self._driver.run_id
        while self._driver.run_id == server:
            reply = await self._driver.run(
                plain("XREAD", "COUNT", 100, "BLOCK", self.BLOCK_MS, "STREAMS", self._keys.control, cursor)
            )
            for _, entries in reply or ():
                for entry, fields in entries:
                    cursor = entry
                    self._heard(fields[1].decode(), fields[3].decode())


class Keeper:
    """All services for the queues of one supervisor.

    Args:
        namespace: The app's.
        config: Settings.
        queues: Queue names.
        make_driver: Makes a driver with the given deadline, seconds.
        me: Name of the supervisor.
    """

    def __init__(
        self, namespace: str, config: Config, queues: list[str], make_driver: Callable[[float], AsyncDriver], me: str
    ) -> None:
        self.config = config
        self.driver = make_driver(config.client.deadline_s)
        self.queues = [QueueFacts(QueueKeys(namespace, queue)) for queue in queues]
        self.members: dict[str, Member] = {}
        self._make_driver = make_driver
        self._me = me
        self._services: list[Service] = []
        self._promoters: dict[str, Promoter] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._control_drivers: list[AsyncDriver] = []

    async def start(self) -> None:
        """Start the services; raises StoreError when Redis cannot be reached now."""
        await self.driver.connect()
        self._beat = Beat(self.driver, self.config, self.queues, self.members)
        self._services = [self._beat]
        for queue in self.queues:
            await self._refresh(queue)
            promoter = self._promoters[queue.keys.queue] = Promoter(self.driver, queue)
            self._services += [
                promoter,
                Reaper(self.driver, self.config, queue, self.members, self._me),
                Maintainer(self.driver, self.config, queue),
            ]
            self._listen(queue)
        self._loops += [asyncio.create_task(service.run(), name=f"streamwork-{service.name}") for service in self._services]

    def _listen(self, queue: QueueFacts) -> None:
        driver = self._make_driver(Control.BLOCK_MS / 1000 + 5)
        self._control_drivers.append(driver)

        def heard(event: str, value: str) -> None:
            self._heard(queue, event, value)

        async def refresh() -> None:
            await self._refresh(queue)

        control = Control(driver, queue.keys, heard, refresh)
        self._loops.append(asyncio.create_task(control.run(), name=f"streamwork-control {queue.keys.queue}"))

    def _heard(self, queue: QueueFacts, event: str, value: str) -> None:
        name = queue.keys.queue
        if event == "lane":
            if value not in queue.lanes:
                queue.lanes.append(value)
            self._tell_lanes(queue)
        elif event == "returned":
            for member in list(self.members.values()):
                member.lane_returned(name, value)
        elif event == "due":
            self._promoters[name].nudge()
        elif event == "cancel":
            for member in list(self.members.values()):
                member.cancel_asked(name, [value])

    def _tell_lanes(self, queue: QueueFacts) -> None:
        for member in list(self.members.values()):
            member.lanes_changed(queue.keys.queue, queue.lanes, queue.fleet)

    async def _refresh(self, queue: QueueFacts) -> None:
        keys = queue.keys
        lanes, returned, cancelled, fleet = await self.driver.run_all([
            plain("HKEYS", keys.lanes), plain("SMEMBERS", keys.returned), plain("HKEYS", keys.cancelled), plain("HLEN", keys.consumers),
        ])  # fmt: skip
        queue.lanes = sorted(lane.decode() for lane in lanes)
        queue.fleet = fleet
        self._tell_lanes(queue)
        for member in list(self.members.values()):
            for lane in returned:
                member.lane_returned(keys.queue, lane.decode())
            if cancelled:
                member.cancel_asked(keys.queue, [task_id.decode() for task_id in cancelled])
        promoter = self._promoters.get(keys.queue)
        if promoter is not None:
            promoter.nudge()

    @property
    def is_beating(self) -> bool:
        """Whether the last beat was answered within the last TTL."""
        return SYSTEM_CLOCK.steady_ms() - self._beat.beaten_at_ms < self.config.liveness.ttl_ms

    def tell(self, member: Member) -> None:
        """Tell one member what there is, once it listens."""
        for queue in self.queues:
            member.lanes_changed(queue.keys.queue, queue.lanes, queue.fleet)
            for lane in queue.lanes:
                member.lane_returned(queue.keys.queue, lane)

    async def add(self, member: Member, registration: bytes) -> None:
        """Register a consumer in every queue, then keep it alive and tell it what there is."""
        sent_at_ms = SYSTEM_CLOCK.steady_ms()
        for queue in self.queues:
            await self.driver.run(scripts.register(queue.keys, member.name, registration, self.config.liveness.ttl_ms))
        self.members[member.name] = member
        member.beaten(sent_at_ms)
        self._beat.beaten_at_ms = sent_at_ms
        for queue in self.queues:
            await self._refresh(queue)

    async def remove(self, member: Member, *, mode: str, evidence: str = "", started: dict[str, list[tuple[str, bytes]]] | None = None) -> int:
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
            ])  # fmt: skip
        return marked

    async def stop(self) -> None:
        """Stop the services and close the connections."""
        for service in self._services:
            service.stop()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for driver in (self.driver, *self._control_drivers):
            await driver.close()
