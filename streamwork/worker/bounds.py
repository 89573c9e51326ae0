"""How much a process may take up: its slots, what Redis has not taken yet (rule 24), and its `max_tasks`."""

from __future__ import annotations

from streamwork.config import WorkerConfig
from streamwork.worker.drain import Hand
from streamwork.worker.executors import Executors
from streamwork.worker.settle import MOST_UNSENT_BYTES, Settler
from streamwork.worker.slot_table import ROWS_PER_SLOT


class Bounds:
    """What a process asks before it reads, and again when what it asked for is there.

    Args:
        worker: Settings.
        hand: What is in hand.
        settler: What waits to be written.
        executors: What waits for its turn.
        most: Most deliveries in the life of this process; 0 = no bound.
    """

    def __init__(self, worker: WorkerConfig, hand: Hand, settler: Settler, executors: Executors, most: int) -> None:
        self._slots = worker.slots
        self._rows = worker.slots * ROWS_PER_SLOT
        self._hand = hand
        self._settler = settler
        self._executors = executors
        self._most = most

    def free(self) -> int:
        """Return how many deliveries can be begun now; less than 1 = none."""
        hand = self._hand
        free = min(self._slots - hand.count, self._rows - len(hand.held))
        return min(free, self._most - hand.taken) if self._most else free

    def to_read(self) -> int:
        """Return how many deliveries to ask for now; less than 1 = none."""
        free, slots, settler = self.free(), self._slots, self._settler
        if settler.unsent >= 2 * slots or settler.unsent_bytes >= MOST_UNSENT_BYTES:
            return 0  # Redis is slow or away: what is finished must be written first
        if 2 * free < slots and self._executors.queued:
            return 0  # what was read waits for its turn, so a read now would only be a smaller one
        return free
