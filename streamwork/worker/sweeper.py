"""Look after limits: the window of groups, and what is held for task messages that are nowhere any more (rule 28)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from streamwork.broker.steps import pairs
from streamwork.model.flow import window_of
from streamwork.model.lane import is_lane, lane_tags
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
_SOON_S = 0.2
# One command, so that a queue without limits costs next to nothing, and the first groups soon have their places.
_UNTIL_NEEDED_S = 2.0
# With more messages than these their numbers are not compared: it takes one look, or something happens in between.
_MOST_COMPARED = 2_000


class Sweeper(Service):
    """The limits of one queue; only on duty."""

    name = "sweeper"
    interval_s = 5.0

    def __init__(self, driver: AsyncDriver, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._queue = queue
        self._cursors: dict[str, bytes] = {}
        self._waited = 0
        self._lost = 0
        self._is_urgent = False

    async def tick(self) -> float | None:
        """Set the window, and look at some of what is held."""
        if not self._queue.on_duty:
            self._waited += 1
            return 0.1 if self._waited < _EAGER_LOOKS else 1.0
        keys = self._queue.keys
        if not await self._driver.run(plain("EXISTS", keys.flow_state)):
            return _UNTIL_NEEDED_S
        looks = [plain("HGETALL", keys.flow_state), plain("HVALS", keys.consumers), plain("HKEYS", keys.lanes)]
        state, registrations, lanes = await self._driver.run_all(looks)
        await self._set_windows(pairs(state), registrations, [lane.decode(errors="replace") for lane in lanes])
        freed = lost = await self._sweep_flow()
        for what, key in (("unique", keys.unique), ("rates", keys.rates)):
            found = (await self._scan("HSCAN", key))[::2]
            if found:
                freed += await self._driver.run(sweep(keys, what, found))
        if await self._driver.run(sweep(keys, "counts", [_MOST_COMPARED])):
            logger.warning("corrected how many a limit was said to have", extra={"queue": keys.queue})
        if freed:
            logger.info("freed what was held for lost messages", extra={"queue": keys.queue, "count": freed})
        self._lost += lost
        if self._cursors[keys.flow] == b"0":
            self._is_urgent, self._lost = self._lost > 0, 0
        # Others wait for the places of what was lost, and where there is some there is more.
        return _SOON_S if lost or self._is_urgent or self._lost else None

    async def _set_windows(
        self, state: dict[bytes, bytes], registrations: Sequence[bytes], lanes: Sequence[str]
    ) -> None:
        keys, workers = self._queue.keys, [_offer(each) for each in registrations]
        windows = {window_of(lane): lane_tags(lane) for lane in lanes if is_lane(lane)}
        slots = {window: sum(slots for slots, tags in workers if needed <= tags) for window, needed in windows.items()}
        # What nobody could run is to wait without a permit of any limit that others have, too.
        sizes = {window: max(_LEAST_PLACES, _PLACES_PER_SLOT * n) if n else 0 for window, n in slots.items()}
        grown = [window for window, size in sizes.items() if size > int(state.get(window.encode(), 0))]
        for window, size in sizes.items():
            await self._driver.run(plain("HSET", keys.flow_state, window, size))
        if grown:
            # The promoter lets in as many as there is room for now.
            tell = plain("XADD", keys.control, "MAXLEN", "~", 1000, "*", "e", "due", "v", 0)
            await self._driver.run_all([*(plain("ZADD", keys.wake, 0, window) for window in grown), tell])

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


def _offer(registration: bytes) -> tuple[int, frozenset[str]]:
    """Return a worker's slots and tags."""
    try:
        found = msgspec.json.decode(registration, type=dict[str, Any])
        return int(found.get("slots") or 0), frozenset(found.get("tags") or ())
    except (msgspec.MsgspecError, TypeError, ValueError):
        return 0, frozenset()  # registered by another version
