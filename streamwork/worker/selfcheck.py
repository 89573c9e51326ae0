"""What a process says of itself: that its loop turns (rule 19), and which of its entries it lost track of (rule 18)."""

from __future__ import annotations

import asyncio

from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import StoreError
from streamwork.worker.consumer import Consumer
from streamwork.worker.drain import Hand
from streamwork.worker.slot_table import SlotTable

# How often a process compares its own pending list with what it holds.
AUDIT_S = 30.0
# How often the loop stamps that it turns.
STAMP_S = 0.5


class SelfCheck:
    """The two loops of a process that look at itself.

    Args:
        table: Where the supervisor sees the stamps.
        consumer: Whose pending list is audited.
        hand: What the process holds.
        slots: How many deliveries it may hold.
    """

    def __init__(self, table: SlotTable, consumer: Consumer, hand: Hand, slots: int) -> None:
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
        consumer = self._consumer
        seen: set[tuple[str, bytes]] = set()
        while True:
            await asyncio.sleep(AUDIT_S)
            try:
                lanes = [lane for queue in consumer.queues for lane in queue.lanes]
                seen = (
                    await consumer.reclaimer.audit(lanes, consumer.name, consumer.free_slots, self._hand.knows, seen)
                    if consumer.name
                    else set()
                )
            except StoreError:
                seen = set()
