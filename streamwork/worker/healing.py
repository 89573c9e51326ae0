"""A lane whose consumer group was lost: made anew at once, and what the group knew brought back from the journal.

New messages run at once. What was added before the loss and is not settled goes to the pseudo-consumer `returned`, from
which workers adopt it; what was in hand at that moment runs again.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from streamwork.broker.inspect import order
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import DecodeError, StoreRejected
from streamwork.service import Service
from streamwork.store import healing
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.wire.message import decode_journal
from streamwork.worker.delivery import LaneSide, QueueSide
from streamwork.worker.member import QueueFacts

logger = logging.getLogger(__name__)

# Ids of lanes and journal are instants of one clock, which may have been set back between an entry and its end.
JOURNAL_MARGIN_MS = 10_000
_LOOK_AGAIN_S = 0.05


class Healer:
    """What a reader does about lost groups.

    Attributes:
        in_question: Whether some lane may be on its way back, so that finding nothing does not mean that there is
            nothing.
    """

    def __init__(self, driver: AsyncDriver) -> None:
        self.in_question = True
        self._driver = driver

    async def heal(self, lanes: Sequence[LaneSide]) -> None:
        """Make the groups anew that are gone."""
        now_ms = SYSTEM_CLOCK.now_ms()
        self.in_question = True  # if not by this one, then another reader has just made it
        for lane in lanes:
            answer = await self._driver.run(healing.heal(lane.queue.keys, lane.name, now_ms))
            if answer != "there":
                _tell(lane.stream, answer)

    def is_asked(self, lanes: Sequence[LaneSide]) -> bool:
        """Whether something was said to be given back, which is also how the start of a restoration is told."""
        self.in_question = self.in_question or any(lane.name in lane.queue.returned for lane in lanes)
        return self.in_question

    async def is_restoring(self, queues: Sequence[QueueSide]) -> bool:
        """Whether entries are still on their way back, or have just come; asks Redis only while that is in question."""
        if not self.in_question:
            return False
        try:
            notes = await self._driver.run_all([plain("HLEN", queue.keys.restoring) for queue in queues])
        except StoreRejected:
            notes = []  # a key of another type: nothing will come back from there
        self.in_question = any(notes)
        if self.in_question:
            await asyncio.sleep(_LOOK_AGAIN_S)
            return True
        # What the last step gave back is also told by a signal, which may come after this reader has found nothing.
        try:
            returned = await self._driver.run_all([plain("SMEMBERS", queue.keys.returned) for queue in queues])
        except StoreRejected:
            returned = [()] * len(queues)
        for queue, lanes in zip(queues, returned, strict=True):
            queue.returned.update(lane.decode(errors="replace") for lane in lanes)
        return any(lane.name in queue.returned for queue in queues for lane in queue.lanes)


def _tell(stream: str, answer: str) -> None:
    """Say what was lost, by heal.lua's answer, and no more than that."""
    gone, _, count = answer.partition(" ")
    facts = {"lane": stream}
    if gone != "gone":
        text = "a lane's consumer group was destroyed and is made anew: no task message is lost"
        logger.warning(text, extra={**facts, "from": answer})
    elif count == "0":
        logger.warning("a lane was deleted and is made anew: nothing waited or ran on it", extra=facts)
    elif count == "-":
        logger.error("data lost: all of a queue is gone, as after FLUSHALL; its lane is made anew", extra=facts)
    else:
        text = "data lost: a lane was deleted with all that waited or ran on it, and is made anew"
        logger.error(text, extra={**facts, "messages": int(count)})


class _Settled(NamedTuple):
    """Entries of a lane that were settled, in order, beside what they sort by."""

    places: list[tuple[int, int]]
    entries: list[bytes]

    def chunk(self, mark: bytes, last: bytes, most: int) -> tuple[bytes, list[bytes]]:
        """Return the entry up to which to look, and what is settled between the mark and there."""
        start = bisect_right(self.places, order(mark))
        part = self.entries[start : start + most]
        return (part[-1] if start + most < len(self.entries) else last), part


class Restorer(Service):
    """Bring back what lost groups knew (rule 8); only on duty.

    Where it stops, the note in Redis says how far it came, and whoever is on duty goes on from there.
    """

    name = "restorer"
    # What a lost signal costs at most: `heal` says that there is something to restore.
    interval_s = 15.0
    # Whoever comes on duty looks this soon; no command is sent for it before.
    _OFF_DUTY_S = 1.0
    # One step looks at so many entries, bodies included, and is told of so many settled ones.
    AT_ONCE, SETTLED_AT_ONCE = 200, 500
    PAGE = 1_000

    def __init__(self, driver: AsyncDriver, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._queue = queue

    async def tick(self) -> float | None:
        """Restore every lane that is noted."""
        if not self._queue.on_duty:
            return self._OFF_DUTY_S
        notes: list[bytes] = await self._driver.run(plain("HGETALL", self._queue.keys.restoring))
        for lane, note in zip(notes[::2], notes[1::2], strict=True):
            try:
                await self._restore(lane.decode(), note)
            except UnicodeDecodeError:
                await self._driver.run(plain("HDEL", self._queue.keys.restoring, lane))  # no lane has such a name
        return None

    async def _restore(self, lane: str, note: bytes | None) -> None:
        settled: _Settled | None = None
        total = 0
        while note:
            mark, last = [*note.split(b" "), b"0", b"0"][:2]
            try:
                settled = settled or await self._settled(lane, mark, last)
                to, part = settled.chunk(mark, last, self.SETTLED_AT_ONCE)
            except ValueError:
                to, part = b"0", []  # not ours: the script takes it away
            step = await self._driver.run(healing.restore(self._queue.keys, lane, note, to, self.AT_ONCE, part))
            note, total = step.note, total + step.entries
        if total:
            logger.warning(
                "unsettled entries of a lane were given back",
                extra={"queue": self._queue.keys.queue, "lane": lane, "entries": total},
            )

    async def _settled(self, lane: str, mark: bytes, last: bytes) -> _Settled:
        """Read from the journal which entries of a lane between two were settled."""
        above, most = order(mark), order(last)
        found: dict[tuple[int, int], bytes] = {}
        journal = self._queue.keys.journal
        newest: list[Any] = await self._driver.run(plain("XREVRANGE", journal, "+", "-", "COUNT", 1))
        since = b"%d" % max(0, above[0] - JOURNAL_MARGIN_MS)
        while newest and since:
            rows = await self._driver.run(plain("XRANGE", journal, since, newest[0][0], "COUNT", self.PAGE))
            for _, fields in rows:
                try:
                    record = decode_journal(fields[1])
                    place = order(record.entry)
                except (DecodeError, ValueError):
                    continue
                if record.lane == lane and above < place <= most:
                    found[place] = record.entry
            since = b"(" + rows[-1][0] if len(rows) == self.PAGE else b""
        places = sorted(found)
        return _Settled(places, [found[place] for place in places])
