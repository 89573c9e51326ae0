"""What one worker process tells of its work: spans to its runner, and the numbers of what has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamwork.config import Config
from streamwork.origins import flush_spans, spans_of
from streamwork.store.scripts import SettleItem
from streamwork.telemetry.meters import Meters, Series
from streamwork.worker.delivery import Run
from streamwork.worker.intake import Settled
from streamwork.worker.runner import Runner

if TYPE_CHECKING:
    from streamwork.telemetry.push import Push

# Names of tasks that nobody here declares come from elsewhere, and there may be any number of them.
_UNKNOWN = "unknown"
_FLUSH_S = 2.0


class Telling:
    """The telemetry of one worker process; nothing of it is there where it is off.

    Args:
        name: The app's.
        config: Says what is wanted.
        told: Told of every outcome besides; None = nobody.
        in_hand: Says how many deliveries are queued or running.
    """

    def __init__(self, name: str, config: Config, told: Settled | None, in_hand: Callable[[], int]) -> None:
        self._name = name
        self._telemetry = config.telemetry
        self._told = told
        self._in_hand = in_hand
        self._meters = Meters() if self._telemetry.counts else None
        self._push: Push | None = None
        if self._meters is not None:
            self._meters.slots = config.worker.slots

    @property
    def listener(self) -> Settled | None:
        """What is to be told of outcomes: this, or whoever else is where nothing is counted."""
        return self._told if self._meters is None else self

    def begin(self, runner: Runner) -> None:
        """Begin, behind what the app has set up by itself; raises ConfigError where an extra is not installed."""
        if self._telemetry.traces != "off":
            runner.spans = spans_of(self._name, self._telemetry)
        if self._telemetry.metrics == "otlp" and self._push is None:
            from streamwork.telemetry.push import Push

            telemetry = self._telemetry
            self._push = Push(self._name, telemetry.otlp_endpoint, telemetry.push_s, self.series)

    def __call__(self, run: Run, item: SettleItem, committed: bool) -> None:
        """Hear that Redis has answered for an outcome."""
        meters = self._meters
        if meters is not None:
            task, began_ms, waited_ms, ran_ms = run.task, run.started_at_ms, -1, -1
            if began_ms:
                waited_ms, ran_ms = began_ms - int(run.entry.partition(b"-")[0]), run.ended_at_ms - began_ms
            name = _UNKNOWN if task is None else task.name
            meters.ended(run.lane.queue.name, name, run.outcome if committed else "lost", waited_ms, ran_ms)
        if self._told is not None:
            self._told(run, item, committed)

    def series(self) -> list[Series]:
        """Return the numbers as they stand; none where nothing is counted."""
        if self._meters is None:
            return []
        self._meters.busy = self._in_hand()
        return self._meters.series()

    async def close(self) -> None:
        """Send out what waits, for two seconds at most each."""
        if self._push is not None:
            push, self._push = self._push, None
            await asyncio.to_thread(push.close)
        if self._telemetry.traces != "off":
            await asyncio.to_thread(flush_spans, _FLUSH_S)
