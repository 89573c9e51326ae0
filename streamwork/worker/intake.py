"""What one process takes in, and how it lets go of it: the way of a delivery between reader, executors and settler."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from streamwork.store.scripts import SettleItem
from streamwork.worker.beginning import Beginner
from streamwork.worker.consumer import Consumer
from streamwork.worker.delivery import QueueSide, Run
from streamwork.worker.drain import Hand
from streamwork.worker.executors import Executors
from streamwork.worker.runner import Runner
from streamwork.worker.slot_table import ROWS_PER_SLOT, SlotTable

logger = logging.getLogger(__name__)

Settled = Callable[[Run, SettleItem, bool], None]


class Intake:
    """The hand-overs of one process; its parts are set once they are made.

    Args:
        hand: What is in hand.
        table: Where started deliveries are noted.
        slots: How many run at once.
        told: Told (run, item, committed) after each settle; None = nobody.

    Attributes:
        rows: The free rows of the table.
        ended: Outcomes that Redis has committed.
    """

    runner: Runner
    executors: Executors
    consumer: Consumer
    beginner: Beginner

    def __init__(self, hand: Hand, table: SlotTable, slots: int, told: Settled | None) -> None:
        self._most_rows = slots * ROWS_PER_SLOT
        self.rows = deque(range(self._most_rows))
        self.ended = 0
        self._hand = hand
        self._table = table
        self._told = told

    def accept(self, run: Run) -> None:
        """Take a delivery that was read or adopted, and begin it or set it aside."""
        runner, is_new = self.runner, run.message is None
        self._hand.take(run)
        if (is_new and not runner.decode(run)) or not runner.admit(run):
            self.freed(run)
        elif is_new and run.attempt.crashes and runner.is_dangerous(run):
            self._hand.count -= 1  # the reader hands it over again once nothing runs beside it
            self.consumer.reclaimer.suspects.append(run)
        elif run.message is not None and run.message.options is not None and run.message.options.begins:
            self.beginner.add(run)
        else:
            self.executors.submit(run)

    def begin(self, run: Run) -> None:
        """Begin a delivery that Redis was asked about, unless it was cancelled or has expired meanwhile."""
        if self.runner.admit(run):
            self.executors.submit(run)
        else:
            self.freed(run)

    def cancelled(self, side: QueueSide | None, task_ids: list[str], *, terminate: bool = False) -> None:
        """Hear what is not to begin; what is in hand and has not begun ends, and where `terminate` what runs too."""
        if side is None:
            return
        asked = set(task_ids)
        side.cancelled |= asked
        for run in list(self._hand.held.values()):
            if run.lane.queue is side and run.message is not None and run.message.id in asked:
                self.executors.cancel_run(run, terminate=terminate)

    @property
    def blamable(self) -> int:
        """Deliveries queued, running, or ended with their outcome not yet written: those that a crash now may blame."""
        return self._hand.count or self._most_rows - len(self.rows)

    def freed(self, run: Run) -> None:
        """Hear that a delivery left its slot, with an outcome or given back."""
        # Its row stays until the outcome is written: who dies before that may have been killed by this run (rule 17).
        if run.stop_reason == "released":
            self._free_row(run)
            if run.span is not None:
                run.span.end("released")
                run.span = None
        else:
            run.is_over = True
            if run.is_unsettled:
                self._free_row(run)
        self._hand.count -= 1
        self.consumer.poke()

    def dropped(self, run: Run) -> None:
        """Hear that a delivery may not begin here: it waits in a line again, or another consumer has it."""
        run.is_over = True
        self._hand.settled(run)
        self._hand.count -= 1
        self.consumer.poke()

    def _free_row(self, run: Run) -> None:
        if run.slot >= 0:
            self._table.clear(run.slot)
            # The last one first, so that few rows of the table are in the processor's cache.
            self.rows.appendleft(run.slot)
            run.slot = -1

    def settled(self, run: Run, item: SettleItem, committed: bool) -> None:
        """Hear that Redis has answered for an outcome."""
        self._hand.settled(run)
        self._free_row(run)
        if run.message is not None and item.op[0] != "R":
            run.lane.queue.cancelled.discard(run.message.id)
        self.ended += committed
        self.consumer.poke()
        if not committed:
            logger.warning(
                "lease lost: this delivery is another consumer's by now, or was deleted; its outcome was not written",
                extra=self.runner.facts(run),
            )
        if self._told is not None:
            self._told(run, item, committed)
