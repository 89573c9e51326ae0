"""What keeps a queue in order: promotion of what is due, low marks, counters and history."""

from __future__ import annotations

import logging
from typing import NamedTuple

from streamwork.broker.dead import PURGE, DeadQuery, DeadReading, doing
from streamwork.broker.info import info, is_nearly_full
from streamwork.broker.inspect import order
from streamwork.broker.steps import aask
from streamwork.broker.tap import taps
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import Config
from streamwork.errors import DecodeError, StoreRejected
from streamwork.model.lane import lane_tags, readable_lanes
from streamwork.service import Service
from streamwork.store import healing, scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.tapping import untap
from streamwork.wire.message import decode_journal
from streamwork.worker.healing import JOURNAL_MARGIN_MS
from streamwork.worker.member import QueueFacts

logger = logging.getLogger(__name__)

_LAST_SEQ = 2**64 - 1


class Keep(NamedTuple):
    """How long the history of a queue is kept: ms and number of records, 0 = no bound; and what readers are told.

    And for how many ms its dead letters are.
    """

    age_ms: int
    most: int
    by_age_words: str
    by_count: str
    dead_ms: int

    @classmethod
    def of(cls, config: Config, queue: str) -> Keep:
        """Return what the settings say of a queue."""
        age_ms, most = config.keep.age_ms(queue), config.keep.most(queue)
        by_age, by_count = f"keep.history_s = {age_ms / 1000:g}", f"keep.history_most = {most}"
        return cls(age_ms, most, by_age, by_count, config.keep.dead_ms(queue))

    def by_age(self, now_ms: int, *, is_hasty: bool) -> tuple[int, str]:
        """Return up to which instant all is too old, 0 = nothing is, and why."""
        if is_hasty:
            return now_ms, "Redis was nearly full"
        return (now_ms - self.age_ms if self.age_ms else 0), self.by_age_words


def after(entry: bytes) -> bytes:
    """Return the id behind one."""
    ms, seq = order(entry)
    return b"%d-%d" % ((ms, seq + 1) if seq < _LAST_SEQ else (ms + 1, 0))


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
    """Keep each lane's low mark, counters and history, and the journal's length (rules 8, 30-33); only on duty."""

    name = "maintainer"
    interval_s = 20.0
    # While there is something to trim and Redis is nearly full; and while one step has taken all that it may.
    HASTY_S, MORE_S = 1.0, 0.2
    TRIMMED_AT_ONCE = 10_000
    # Records of the journal that are read, to know which entries they speak of, before they go by count.
    COUNTED_AT_ONCE, PAGE = 20_000, 2_000
    # Pages of dead letters that one tick frees, up to 200 letters each.
    DEAD_PAGES = 5

    def __init__(self, driver: AsyncDriver, config: Config, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._queue = queue
        self._keep = Keep.of(config, queue.keys.queue)
        self._is_hasty = False
        # By lane, the first entry that the journal may still speak of.
        self._counted: dict[str, bytes] = {}

    async def tick(self) -> float | None:
        """Keep every lane once."""
        if not self._queue.on_duty:
            return 1.0  # who is on duty is decided within a second of the start
        keys, now_ms, step = self._queue.keys, SYSTEM_CLOCK.now_ms(), self.TRIMMED_AT_ONCE
        self._say(is_hasty=await self._is_nearly_full())
        oldest_ms, why = self._keep.by_age(now_ms, is_hasty=self._is_hasty)
        bounds = healing.Bounds(nearly_full_ms=int(3000 * self.interval_s) if self._is_hasty else 0)
        open_ms, trimmed = now_ms, list[int]()
        for lane in await self._lanes():
            oldest, because = self._oldest(lane, oldest_ms, why)
            kept = await self._driver.run(healing.maintain(keys, lane, oldest, step, now_ms, bounds, because))
            trimmed.append(kept.trimmed)
            if kept.first_open:
                # A lost group is restored with the journal from there on.
                open_ms = min(open_ms, int(kept.first_open.partition(b"-")[0]) - JOURNAL_MARGIN_MS)
        if min(oldest_ms, open_ms) > 0:
            oldest = str(min(oldest_ms, open_ms))
            trimmed.append(await self._driver.run(healing.trim(keys, oldest, step, now_ms, why)))
        counted = await self._trim_by_count(open_ms, now_ms) if self._keep.most else 0
        is_buried = await self._purge_dead(now_ms)
        await self._untap()
        # Redis trims whole nodes, of which a hundred entries are the most: a step ends a little below what it may.
        if max(trimmed, default=0) >= step - 100 or counted >= self.COUNTED_AT_ONCE or not is_buried:
            return self.MORE_S
        return self.HASTY_S if self._is_hasty and any(trimmed) else None

    def _oldest(self, lane: str, oldest_ms: int, why: str) -> tuple[str, str]:
        """Return from which entry on a lane is kept, by age or by count, and which of the two it is."""
        counted = self._counted.get(lane)
        if counted is None or order(counted) <= (oldest_ms, 0):
            return str(oldest_ms), why
        return counted.decode(), self._keep.by_count

    async def _trim_by_count(self, open_ms: int, now_ms: int) -> int:
        """Let the oldest records of the journal go that are too many, and note up to where entries may go with them."""
        keys, gone = self._queue.keys, 0
        excess = await self._driver.run(plain("XLEN", keys.journal)) - self._keep.most
        while gone < min(excess, self.COUNTED_AT_ONCE):
            count = min(self.PAGE, excess - gone)
            rows = await self._driver.run(plain("XRANGE", keys.journal, "-", f"({max(1, open_ms)}-0", "COUNT", count))
            if not rows:
                break  # what is left is needed where a group is lost
            for _, fields in rows:
                try:
                    record = decode_journal(fields[1])
                    behind = after(record.entry)
                except (DecodeError, ValueError):
                    continue
                if order(behind) > order(self._counted.get(record.lane, b"0")):
                    self._counted[record.lane] = behind
            await self._driver.run(healing.trim(keys, after(rows[-1][0]).decode(), 0, now_ms, self._keep.by_count))
            gone += len(rows)
        return gone

    async def _purge_dead(self, now_ms: int) -> bool:
        """Free the dead letters that are too old, some at a time; answers whether these were all."""
        if not self._keep.dead_ms:
            return True
        reading, gone = DeadReading(self._queue.keys, DeadQuery(until_ms=now_ms - self._keep.dead_ms)), 0
        by = f"keep.dead_s = {self._keep.dead_ms / 1000:.10g}"
        for _ in range(self.DEAD_PAGES):
            gone += sum(not why for _, why in await aask(self._driver, doing(reading, PURGE, by, dry_run=False)))
            if reading.is_over:
                break
        if gone:
            facts = {"queue": self._queue.keys.queue, "letters": gone, "why": by}
            logger.info("dead letters past their retention are purged", extra=facts)
        return reading.is_over

    async def _untap(self) -> None:
        """Remove the taps that nobody has used for a day."""
        keys = self._queue.keys
        for name in taps(await self._driver.run(plain("HKEYS", keys.taps))):
            if await self._driver.run(untap(keys, name, await self._lanes(), only_dead=True)):
                logger.info("a tap that nobody uses is removed", extra={"queue": keys.queue, "group": name})

    async def _is_nearly_full(self) -> bool:
        try:
            memory = await self._driver.run(info("memory"))
        except StoreRejected:
            return False  # an account that may not ask
        return is_nearly_full(memory)

    def _say(self, *, is_hasty: bool) -> None:
        facts = {"queue": self._queue.keys.queue}
        if is_hasty and not self._is_hasty:
            self._queue.tell("queue.trimmed_early", queue=self._queue.keys.queue, detail="Redis is nearly full")
            logger.warning("Redis is nearly full: history is trimmed early, large results are dropped", extra=facts)
        elif self._is_hasty and not is_hasty:
            logger.info("Redis has room again: history and results are kept as configured", extra=facts)
        self._is_hasty = is_hasty

    async def _lanes(self) -> list[str]:
        """Return the lanes that are listed, and those that have counted messages and lost their place in the list."""
        counted: list[bytes] = await self._driver.run(plain("HKEYS", self._queue.keys.added))
        names = {*self._queue.lanes, *(name.decode(errors="replace") for name in counted)}
        return sorted(name for name in names if readable_lanes([name], lane_tags(name)))
