"""Look after limits: the window of groups, and what is held for task messages that are nowhere any more (rule 28)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

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


class Sweeper(Service):
    """The limits of one queue; only on duty."""

    name = "sweeper"
    interval_s = 20.0

    def __init__(self, driver: AsyncDriver, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._queue = queue
        self._cursors: dict[str, bytes] = {}

    async def tick(self) -> float | None:
        """Set the window, and look at some of what is held."""
        if not self._queue.on_duty:
            return 1.0
        keys = self._queue.keys
        looks = [plain("EXISTS", keys.flow_state), plain("HVALS", keys.consumers)]
        in_use, registrations = await self._driver.run_all(looks)
        if not in_use:
            return None
        places = max(_LEAST_PLACES, _PLACES_PER_SLOT * sum(map(_slots, registrations)))
        await self._driver.run(plain("HSET", keys.flow_state, "window", places))
        freed = await self._sweep_flow()
        for what, scan, key, step in (
            ("permits", "ZSCAN", keys.permits, 2),
            ("unique", "HSCAN", keys.unique, 2),
            ("rates", "HSCAN", keys.rates, 2),
        ):
            found = (await self._scan(scan, key))[::step]
            if found:
                freed += await self._driver.run(sweep(keys, what, found))
        if freed:
            logger.info("freed what was held for lost messages", extra={"queue": keys.queue, "count": freed})
        return None

    async def _sweep_flow(self) -> int:
        flat = await self._scan("HSCAN", self._queue.keys.flow)
        by_lane: dict[str, list[bytes]] = {}
        for task_id, record in zip(flat[::2], flat[1::2], strict=True):
            place = bytes(record).partition(b"\n")[0].decode(errors="replace")
            by_lane.setdefault(place.rpartition("/")[0], []).append(task_id)
        freed = 0
        for lane, ids in by_lane.items():
            freed += await self._driver.run(sweep(self._queue.keys, "flow", ids, lane))
        return freed

    async def _scan(self, command: str, key: str) -> Sequence[Any]:
        cursor, found = await self._driver.run(plain(command, key, self._cursors.get(key, b"0"), "COUNT", _AT_ONCE))
        self._cursors[key] = cursor
        return list(found)


def _slots(registration: bytes) -> int:
    try:
        return int(msgspec.json.decode(registration, type=dict[str, Any]).get("slots") or 0)
    except (msgspec.MsgspecError, TypeError, ValueError):
        return 0  # registered by another version
