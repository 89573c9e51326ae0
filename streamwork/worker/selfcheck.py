"""What a process says of itself: that its loop turns (rule 19), and which of its entries it lost track of (rule 18)."""

from __future__ import annotations

import asyncio
import functools

from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import StoreError
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.worker.consumer import Consumer
from streamwork.worker.drain import Hand
from streamwork.worker.slot_table import SlotTable

# How often a process compares its own pending list with what it holds.
AUDIT_S = 30.0
# How many marks are asked for at once.
_MARKS = 1_000
# How often the loop stamps that it turns.
STAMP_S = 0.5


class SelfCheck:
    """The two loops of a process that look at itself.

    Args:
        driver: The process's shared connection.
        table: Where the supervisor sees the stamps.
        consumer: Whose pending list is audited.
        hand: What the process holds.
        slots: How many deliveries it may hold.
    """

    def __init__(self, driver: AsyncDriver, table: SlotTable, consumer: Consumer, hand: Hand, slots: int) -> None:
        self._driver = driver
        self._table = table
        self._consumer = consumer
        self._hand = hand
        self._slots = slots

    async def stamp(self) -> None:
        """Stamp until cancelled."""
        while True:
            self._table.loop_at_ms = SYSTEM_CLOCK.steady_ms()
            self._table.free_slots = self._slots - self._hand.count
            await asyncio.sleep(STAMP_S)

    async def audit(self) -> None:
        """Audit until cancelled; an entry unknown twice running is taken up."""
        seen: set[tuple[str, bytes]] = set()
        while True:
            await asyncio.sleep(AUDIT_S)
            try:
                await self._consumer.set_aside_foreign()
                await self._forget_cancelled()
                seen = await self._audit(seen)
            except StoreError:
                seen = set()

    async def _audit(self, seen: set[tuple[str, bytes]]) -> set[tuple[str, bytes]]:
        consumer, name = self._consumer, self._consumer.name
        if not name:
            return set()
        room = functools.partial(consumer.room_beside, name)
        return await consumer.reclaimer.audit(consumer.lanes, name, room, self._hand.knows, seen)

    async def _forget_cancelled(self) -> None:
        """Forget the marks of what has ended, here or elsewhere: the settle that ends a message deletes its mark."""
        for queue in self._consumer.queues:
            known = list(queue.cancelled)
            for begin in range(0, len(known), _MARKS):
                some = known[begin : begin + _MARKS]
                marks = await self._driver.run(plain("HMGET", queue.keys.cancelled, *some))
                queue.cancelled.difference_update(
                    task_id for task_id, mark in zip(some, marks, strict=True) if mark is None
                )
