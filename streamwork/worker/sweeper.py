"""Look after limits: the window of groups, and what is held for task messages that are nowhere any more (rule 28)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from streamwork.model.flow import held_limits
from streamwork.service import Service
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.limiting import sweep
from streamwork.worker.member import QueueFacts

logger = logging.getLogger(__name__)

# Of each kind in one tick: some milliseconds of Redis.
_AT_ONCE = 200
# Groups take turns for so many places per slot of the live workers: enough that no slot waits for the next turn, and
# few enough that the first message of a new group soon has its turn.
_PLACES_PER_SLOT = 2
_LEAST_PLACES = 10
# Until the first one is on duty, groups have the few places of a queue without workers: that ends soon after a start.
_EAGER_LOOKS = 30
# With more limits in use at once their numbers are not compared: one look would take Redis more than some milliseconds.
_MOST_COMPARED = 10_000


class Sweeper(Service):
    """The limits of one queue; only on duty."""

    name = "sweeper"
    interval_s = 20.0

    def __init__(self, driver: AsyncDriver, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._queue = queue
        self._cursors: dict[str, bytes] = {}
        # Permits by limit, seen since the cursor began anew; what did not match the kept number then.
        self._seen: Counter[bytes] = Counter()
        self._doubted: dict[bytes, tuple[int, int]] = {}
        self._waited = 0

    async def tick(self) -> float | None:
        """Set the window, and look at some of what is held."""
        if not self._queue.on_duty:
            self._waited += 1
            return 0.1 if self._waited < _EAGER_LOOKS else 1.0
        keys = self._queue.keys
        looks = [plain("HGET", keys.flow_state, "window"), plain("HVALS", keys.consumers)]
        window, registrations = await self._driver.run_all(looks)
        if window is None and not await self._driver.run(plain("EXISTS", keys.flow_state)):
            return None
        places = max(_LEAST_PLACES, _PLACES_PER_SLOT * sum(map(_slots, registrations)))
        await self._driver.run(plain("HSET", keys.flow_state, "window", places))
        if places > int(window or 0):
            # The promoter lets in as many as there is room for now.
            tell = plain("XADD", keys.control, "MAXLEN", "~", 1000, "*", "e", "due", "v", 0)
            await self._driver.run_all([plain("ZADD", keys.wake, 0, "*"), tell])
        freed = await self._sweep_flow()
        for what, scan, key, step in (
            ("unique", "HSCAN", keys.unique, 2),
            ("rates", "HSCAN", keys.rates, 2),
        ):
            found = (await self._scan(scan, key))[::step]
            if found:
                freed += await self._driver.run(sweep(keys, what, found))
        if self._cursors[keys.flow] == b"0":
            await self._compare()
        if freed:
            logger.info("freed what was held for lost messages", extra={"queue": keys.queue, "count": freed})
        return None

    async def _sweep_flow(self) -> int:
        flat = await self._scan("HSCAN", self._queue.keys.flow)
        by_lane: dict[str, list[bytes]] = {}
        for task_id, record in zip(flat[::2], flat[1::2], strict=True):
            self._seen.update(name.encode() for name in held_limits(bytes(record)))
            place = bytes(record).partition(b"\n")[0].decode(errors="replace")
            by_lane.setdefault(place.rpartition("/")[0], []).append(task_id)
        freed = 0
        for lane, ids in by_lane.items():
            freed += await self._driver.run(sweep(self._queue.keys, "flow", ids, lane))
        return freed

    async def _compare(self) -> None:
        """Correct how many permits a limit is said to have, where that is wrong in the same way twice running.

        The scripts change both in one step, so only hands can have done that; a limit would stay full for ever.
        """
        keys = self._queue.keys
        numbers, self._seen = self._seen, Counter()
        if await self._driver.run(plain("HLEN", keys.permits)) > _MOST_COMPARED:
            return
        flat = await self._driver.run(plain("HGETALL", keys.permits))
        kept = {field[1:]: int(n) for field, n in zip(flat[::2], flat[1::2], strict=True) if field[:1] == b"+"}
        waiting = [field for field in flat[::2] if field[:1] == b"-"]
        wrong = {name: (kept.get(name, 0), numbers[name]) for name in {*kept, *numbers}}
        wrong = {name: two for name, two in wrong.items() if two[0] != two[1]}
        twice = [part for name, two in wrong.items() if self._doubted.get(name) == two for part in (name, *two)]
        self._doubted = wrong
        found: tuple[tuple[str, list[Any]], ...] = (("held", twice), ("waiting", waiting))
        for what, names in found:
            changed = await self._driver.run(sweep(keys, what, names)) if names else 0
            if changed:
                logger.warning("corrected how many a limit was said to have", extra={"queue": keys.queue})

    async def _scan(self, command: str, key: str) -> Sequence[Any]:
        cursor, found = await self._driver.run(plain(command, key, self._cursors.get(key, b"0"), "COUNT", _AT_ONCE))
        self._cursors[key] = cursor
        return list(found)


def _slots(registration: bytes) -> int:
    try:
        return int(msgspec.json.decode(registration, type=dict[str, Any]).get("slots") or 0)
    except (msgspec.MsgspecError, TypeError, ValueError):
        return 0  # registered by another version
