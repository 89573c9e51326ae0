"""Who is alive: the beat that says so, and the reaper that sees to the dead (rules 11-16)."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import Config
from streamwork.errors import StoreError
from streamwork.service import Service
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.keys import RETURNED_CONSUMER, QueueKeys
from streamwork.worker.member import Member, QueueFacts

logger = logging.getLogger(__name__)


class Beat(Service):
    """Renew every consumer's liveness in every queue; four beats fit into one TTL."""

    name = "beat"
    # Every so many beats, 5 s at the defaults, also say when work was last claimed; only people read that.
    SAY_EVERY = 4

    def __init__(
        self, driver: AsyncDriver, config: Config, queues: list[QueueFacts], members: dict[str, Member]
    ) -> None:
        super().__init__()
        self._driver = driver
        self._ttl_ms = config.liveness.ttl_ms
        self.interval_s = config.liveness.beat_s
        self._queues = queues
        self._members = members
        self.beaten_at_ms = 0
        self._beats = 0
        self._said: set[str] = set()

    async def tick(self) -> float:
        """Beat once for everyone; a lapsed one is revived or told that it is fenced."""
        members = list(self._members.values())
        pairs = [(member, queue) for member in members for queue in self._queues]
        sent_at_ms = SYSTEM_CLOCK.steady_ms()
        alive = await self._driver.run_all(
            [scripts.beat(queue.keys, member.name, self._ttl_ms) for member, queue in pairs]
        )
        self.beaten_at_ms = sent_at_ms
        fenced: set[str] = set()
        for (member, queue), renewed in zip(pairs, alive, strict=True):
            if not renewed and member.name not in fenced:
                answer = await self._driver.run(scripts.revive(queue.keys, member.name, self._ttl_ms))
                logger.debug(
                    "liveness had lapsed", extra={"consumer": member.name, "queue": queue.keys.queue, "now": answer}
                )
                if answer == "fenced":
                    fenced.add(member.name)
                    await self._say_if_lost(queue.keys)
        for member in members:
            try:
                if member.name in fenced:
                    self._members.pop(member.name, None)
                    self._queues[0].tell("worker.fenced", worker=member.name)
                    member.fenced()
                else:
                    member.beaten(sent_at_ms)
            except Exception:  # one that cannot hear must not make the others deaf
                logger.exception("a consumer cannot be told of its beat", extra={"consumer": member.name})
        self._beats += 1
        claimed = {name for name, member in self._members.items() if member.claimed_at_ms}
        if claimed - self._said or not self._beats % self.SAY_EVERY:  # the first one soon, then now and then
            await self._say_claims()
            self._said = claimed
        return self.interval_s

    async def _say_if_lost(self, keys: QueueKeys) -> None:
        """Tell a loss of data from a consumer that was taken for dead: that needs another one that lives."""
        if not await self._driver.run(plain("EXISTS", keys.consumers)):
            text = "data lost: nothing that was registered for a queue is left, as after FLUSHALL"
            logger.error(text, extra={"queue": keys.queue})

    async def _say_claims(self) -> None:
        since_ms = SYSTEM_CLOCK.now_ms() - SYSTEM_CLOCK.steady_ms()
        said = [
            scripts.claimed(queue.keys, member.name, since_ms + member.claimed_at_ms)
            for member in self._members.values()
            if member.claimed_at_ms
            for queue in self._queues
        ]
        with contextlib.suppress(StoreError):  # full, or away, which the next beat meets
            await self._driver.run_all(said)


class Reaper(Service):
    """Find dead consumers and mark their entries for adoption; one at a time, others stand by (rules 13–16).

    If it dies midway, what it had marked is adopted and the rest is found by the next; two at once do no harm, since
    the script that takes checks liveness itself.
    """

    name = "reaper"
    # Every so many ticks also look for owners of entries that are not registered: a fenced one that read again.
    FULL_EVERY = 16

    def __init__(
        self, driver: AsyncDriver, config: Config, queue: QueueFacts, members: dict[str, Member], me: str
    ) -> None:
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
        self._missed: set[str] = set()

    async def tick(self) -> float:
        """Renew the pulse and take who was found dead twice running; answers when to come again.

        Between two looks there is a beat, with which the living come back: a clock that is set back and right again
        ends the lives that were renewed meanwhile, and not the pulse.
        """
        keys, liveness = self._queue.keys, self._liveness
        pulse = await self._driver.run(
            scripts.pulse(keys, self._me, liveness.pulse_ms, liveness.ttl_ms, liveness.near_ms)
        )
        self._queue.on_duty = pulse.on_duty
        missed, self._missed = self._missed, set()
        if not pulse.on_duty:
            return max(0.02, (pulse.left_ms - liveness.near_ms * 0.7) / 1000)
        registered: list[bytes] = await self._driver.run(plain("HKEYS", keys.consumers))
        self._queue.fleet = len(registered)
        if pulse.lapsed:
            logger.debug("no reaper was here, nobody is taken for a TTL", extra={"queue": keys.queue})
            return self.interval_s
        others = [name.decode() for name in registered if name.decode() not in self._members]
        dead = await self._without_liveness(others)
        self._ticks += 1
        if self._ticks % self.FULL_EVERY == 1 or self._taken or missed:
            dead += await self._unregistered({*others, *self._members})
        for consumer in missed.intersection(dead):
            await self._take(consumer)
        await self._drop_emptied()
        self._missed = set(dead)
        return 1.2 * liveness.beat_s if self._missed - missed else self.interval_s

    async def _without_liveness(self, consumers: list[str]) -> list[str]:
        if not consumers:
            return []
        found: list[Any] = await self._driver.run(plain("MGET", *map(self._queue.keys.alive, consumers)))
        return [name for name, value in zip(consumers, found, strict=True) if value is None]

    async def _unregistered(self, registered: set[str]) -> list[str]:
        names: set[str] = set()
        for lane in self._queue.lanes:
            try:
                rows: list[list[Any]] = await self._driver.run(
                    plain("XINFO", "CONSUMERS", self._queue.keys.lane(lane), "workers")
                )
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
                    return  # in grace, the pulse has lapsed since, or it is alive after all
                marked += answer
                if answer < 100:
                    break
        if not self._queue.lanes:
            await self._driver.run(plain("HDEL", self._queue.keys.consumers, consumer))
        self._taken[consumer] = SYSTEM_CLOCK.steady_ms()
        self._queue.tell("worker.vanished", queue=self._queue.keys.queue, worker=consumer, entries=marked)
        logger.warning(
            "dead consumer taken", extra={"queue": self._queue.keys.queue, "consumer": consumer, "entries": marked}
        )

    async def _drop_emptied(self) -> None:
        # Not before one BLOCK after death: a blocked read of the dead could still make the name again (rule 13).
        now_ms = SYSTEM_CLOCK.steady_ms()
        for consumer, at_ms in list(self._taken.items()):
            if now_ms - at_ms > self._block_ms + 1_000:
                for lane in self._queue.lanes:
                    await self._driver.run(scripts.drop_consumer(self._queue.keys, lane, consumer))
                del self._taken[consumer]
