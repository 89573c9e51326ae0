"""What a process has in hand, and how it lets go of it at the end (P8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamwork.worker.consumer import Consumer
from streamwork.worker.delivery import Run
from streamwork.worker.executors import Executors
from streamwork.worker.settle import Settler

# What has ended is worth this much more time to be written, seconds, also after the drain deadline.
_SETTLE_S = 2.0
# How long cancelled bodies may take to clean up, seconds.
_CLEAN_UP_S = 1.0


class Hand:
    """The deliveries of one process.

    Attributes:
        count: Queued or running.
        taken: Taken since the start.
        held: By (lane, entry), until Redis has answered for their end.
    """

    def __init__(self) -> None:
        self.count = self.taken = 0
        self.held: dict[tuple[bytes, bytes], Run] = {}

    def take(self, run: Run) -> None:
        """Add a delivery; one that was set aside for later comes a second time, decoded."""
        self.count += 1
        self.taken += run.message is None
        self.held[run.lane.name_bytes, run.entry] = run

    def free_for(self, task_id: str, slots: int) -> int:
        """Return the slots that are free for a message; one that is in hand has one already."""
        if self.count < slots:
            return slots - self.count
        return sum(run.message is not None and run.message.id == task_id for run in list(self.held.values()))

    def knows(self, lane: bytes, entry: bytes) -> bool:
        """Whether this entry is in hand, or its end not yet answered for."""
        return (lane, entry) in self.held

    def settled(self, run: Run) -> None:
        """Drop a delivery, unless the same entry was delivered anew meanwhile."""
        place = (run.lane.name_bytes, run.entry)
        if self.held.get(place) is run:
            del self.held[place]


class Drain:
    """The order of an end: let run, cancel, give back, settle.

    Args:
        executors: Where bodies run.
        consumer: The reader; told to stop already.
        settler: Writes outcomes.
        hand: What is left.
        cancelled: Set when nothing more is waited for.
    """

    def __init__(
        self, executors: Executors, consumer: Consumer, settler: Settler, hand: Hand, cancelled: asyncio.Event
    ) -> None:
        self._executors = executors
        self._consumer = consumer
        self._settler = settler
        self._hand = hand
        self._cancelled = cancelled

    async def run(self, reading: asyncio.Task[None], settling: asyncio.Task[None], timeout_s: float) -> bool:
        """Drain; False when outcomes are left that Redis could not take.

        Args:
            reading: The reader's loop.
            settling: The settler's loop; ended or cancelled afterwards.
            timeout_s: How long bodies may go on.
        """
        now = asyncio.get_running_loop().time
        hand, is_cancelled = self._hand, self._cancelled.is_set
        deadline_s = now() + timeout_s
        await _until(lambda: is_cancelled() or (hand.count == 0 and reading.done()), deadline_s)
        if hand.count:
            self._executors.cancel()
        await _until(lambda: reading.done() and not (hand.count and self._executors.cancellable), now() + _CLEAN_UP_S)
        self._executors.flush()
        await self._give_back()
        self._executors.flush()
        self._settler.close()
        enough_s = now() + _SETTLE_S
        await _until(lambda: settling.done() or (is_cancelled() and now() > enough_s), max(deadline_s, enough_s))
        settling.cancel()
        return settling.done() and not self._settler.unsent

    async def _give_back(self) -> None:
        unsettled = {(run.lane.name_bytes, run.entry) for run, _ in self._settler.pending()}
        left = [run for place, run in self._hand.held.items() if place not in unsettled and not run.is_over]
        for run in left:
            run.is_over = True  # what its thread still says is not heard any more
        await self._consumer.reclaimer.give_back(left)


async def _until(fact: Callable[[], bool], deadline_s: float) -> None:
    loop = asyncio.get_running_loop()
    while not fact() and loop.time() < deadline_s:  # noqa: ASYNC110 - several facts, once in a process's life
        await asyncio.sleep(0.01)
