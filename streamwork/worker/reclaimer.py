"""Take over what was given back, find what was lost track of, and give back (rules 15, 16, 18)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from streamwork.errors import StoreError
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.wire.message import Attempt
from streamwork.worker.delivery import LaneSide, QueueSide, Run

logger = logging.getLogger(__name__)

# Rows asked for at once.
_PAGE = 1000


class Reclaimer:
    """The other way, beside reading, in which deliveries come to a process and leave it.

    Args:
        driver: The process's shared connection.
        accept: Takes a delivery.

    Attributes:
        suspects: Deliveries that wait until nothing runs beside them.
    """

    def __init__(self, driver: AsyncDriver, accept: Callable[[Run], None]) -> None:
        self.suspects: deque[Run] = deque()
        self._driver = driver
        self._accept = accept

    async def adopt(self, queues: list[QueueSide], consumer: str, most: int, room: Callable[[], int]) -> bool:
        """Take over marked entries, which come before new ones; True when there were any.

        Args:
            queues: Where to look.
            consumer: For whom.
            most: Most entries, ≥ 1.
            room: Answers, once they are there, how many can be begun; the others are given back.
        """
        for queue in queues:
            for lane in queue.lanes:
                if lane.name not in queue.returned or lane.is_foreign or queue.is_paused:
                    continue
                await self._driver.connect()
                server = self._driver.run_id
                adopted = await self._driver.run(scripts.adopt(queue.keys, lane.name, consumer, most))
                if len(adopted) < most:
                    queue.returned.discard(lane.name)
                await self._take_up(self._runs(lane, adopted, consumer, server), room())
                if adopted:
                    return True
        return False

    async def _take_up(self, runs: list[Run], room: int) -> None:
        # The room is what there is now: while these were on their way the reader and the audit may both have taken.
        free = max(0, room)
        for run in runs[:free]:
            self._accept(run)
        if runs[free:]:
            await self.release(runs[free:])

    @staticmethod
    def _runs(lane: LaneSide, adopted: list[scripts.Adopted], consumer: str, server: str) -> list[Run]:
        runs: list[Run] = []
        for entry, fields, delivered, suspicion in adopted:
            if fields is None:
                logger.error(
                    "an adopted entry is gone from its stream", extra={"lane": lane.stream, "entry": entry.decode()}
                )
                continue
            run = Run(lane, entry, fields, consumer, server)
            run.count = delivered
            if suspicion is not None:
                crashes, lost, evidence = suspicion.decode(errors="replace").split(",", 2)
                run.attempt = Attempt(crashes=int(crashes), lost=int(lost))
                run.is_suspect = True
                run.stop_reason = evidence
            runs.append(run)
        if adopted:
            logger.info(
                "took over what was given back",
                extra={"lane": lane.stream, "entries": len(adopted), "consumer": consumer},
            )
        return runs

    async def audit(
        self, lanes: list[LaneSide], consumer: str, room: Callable[[], int], known: Callable[[bytes, bytes], bool],
        seen: set[tuple[str, bytes]] | None,
    ) -> set[tuple[str, bytes]]:  # fmt: skip
        """Look for the consumer's own pending entries that this process lost track of.

        Args:
            lanes: Where to look.
            consumer: Whose entries.
            room: Answers how many can be begun now, asked again when they are there; the others are given back.
            known: Tells whether (lane, entry) is held.
            seen: What was unknown before and is taken up if it still is; None = all, which only the reader may say,
                while no read is in flight.

        Returns:
            (lane, entry) pairs unknown for the first time.
        """
        unknown: set[tuple[str, bytes]] = set()
        for lane in lanes:
            pending = await self._own(lane, consumer)
            missing = {row[0]: row[3] for row in pending if not known(lane.name_bytes, row[0])}
            again = [entry for entry in missing if seen is None or (lane.stream, entry) in seen]
            unknown |= {(lane.stream, entry) for entry in missing if entry not in again}
            if again:
                logger.warning("own entries found again", extra={"lane": lane.stream, "entries": len(again)})
            free = max(0, room())
            counted = [(entry, missing[entry]) for entry in again]
            if counted[:free]:
                await self._driver.connect()
                server = self._driver.run_id
                own = await self._driver.run(scripts.adopt(lane.queue.keys, lane.name, consumer, free, counted[:free]))
                await self._take_up(self._runs(lane, own, consumer, server), room())
            if counted[free:]:
                await self._driver.run(scripts.release(lane.queue.keys, lane.name, consumer, counted[free:]))
        return unknown

    async def _own(self, lane: LaneSide, consumer: str) -> list[Any]:
        # To the end: what was lost is the newest, and with outcomes that wait for Redis a consumer owns thousands.
        rows: list[Any] = []
        start: bytes | str = "-"
        while True:
            page = await self._driver.run(plain("XPENDING", lane.stream, "workers", start, "+", _PAGE, consumer))
            rows += page
            if len(page) < _PAGE:
                return rows
            start = b"(" + page[-1][0]

    async def set_aside_foreign(self, lanes: list[LaneSide]) -> bool:
        """Look which lanes have something else under their name, and read those no more; True when that changed."""
        changed = False
        for lane in lanes:
            found: bytes | str = await self._driver.run(plain("TYPE", lane.stream))
            kind = found.decode() if isinstance(found, bytes) else found
            is_foreign = kind not in {"stream", "none"}
            if is_foreign == lane.is_foreign:
                continue
            lane.is_foreign, changed = is_foreign, True
            if is_foreign:
                logger.error("a lane's key is no stream: it is left alone", extra={"lane": lane.stream, "type": kind})
            else:
                logger.info("a lane is read again", extra={"lane": lane.stream})
        return changed

    async def release(self, runs: list[Run]) -> int:
        """Give deliveries back in place, without counting an attempt; answers how many were still ours."""
        back = 0
        by_lane: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            by_lane.setdefault((run.lane.stream, run.consumer), []).append(run)
        for (_, consumer), group in by_lane.items():
            lane = group[0].lane
            back += await self._driver.run(
                scripts.release(lane.queue.keys, lane.name, consumer, [(run.entry, run.count) for run in group])
            )
        return back

    async def give_back(self, runs: list[Run]) -> None:
        """Release at the end of a drain; where Redis is away they are reclaimed with the consumer."""
        if not runs:
            return
        try:
            back = await self.release(runs)
        except StoreError as error:
            logger.warning("could not give deliveries back", extra={"deliveries": len(runs), "error": str(error)})
        else:
            logger.info("gave deliveries back", extra={"deliveries": back})
