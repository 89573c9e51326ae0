"""Time limits of runs: the soft one, the hard one, and how a body moves its hard one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import Any

from streamwork.errors import SoftTimeout
from streamwork.worker.delivery import Run


class Limits:
    """The timers of what one executor runs.

    Args:
        soft: Called on the loop when a run has reached its soft limit.
        hard: Called on the loop when it has reached its hard one.
    """

    def __init__(self, soft: Callable[[Run], None], hard: Callable[[Run], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._soft = soft
        self._hard = hard

    @staticmethod
    def begin(run: Run, hard_s: float | None) -> None:
        """Let the time of a run begin now, before its body can ask for more; `arm` follows."""
        if hard_s is not None:
            run.limit_from_s = time.monotonic()
            run.limit_at_s = run.limit_from_s + hard_s

    def arm(self, run: Run, soft_s: float | None, hard_s: float | None) -> None:
        """Set the timers of a run whose time has begun; only on the loop."""
        if run.is_over:
            return
        if soft_s is not None and (hard_s is None or soft_s < hard_s):
            run.soft_timer = self._loop.call_later(soft_s, self._soft, run)
        if hard_s is not None:
            self.again(run)

    def _expire(self, run: Run) -> None:
        if run.limit_at_s > time.monotonic():  # it was extended
            self.again(run)
        else:
            self._hard(run)

    def again(self, run: Run) -> None:
        """Look again at the hard limit that a run has by now."""
        run.timer = self._loop.call_later(run.limit_at_s - time.monotonic(), self._expire, run)


def extend(run: Run, span_s: float) -> None:
    """Let a run with a hard limit go on for so long from now, at least; from any thread."""
    if run.limit_at_s:
        run.limit_at_s = max(run.limit_at_s, time.monotonic() + span_s)


def disarm(run: Run) -> None:
    """Stop the timers of a run that has ended."""
    if run.timer is not None:
        run.timer.cancel()
    if run.soft_timer is not None:
        run.soft_timer.cancel()


def overdue(run: Run) -> TimeoutError:
    """Return what a run that has reached its hard limit ends with."""
    return TimeoutError(f"not ended within {round(run.limit_at_s - run.limit_from_s, 3):g} s")


class Steered:
    """Awaits a body with a soft limit: a cancellation that means the limit reaches the body as `SoftTimeout`.

    A task can be interrupted in no other way than by its cancellation, which also ends what it waits for.

    Args:
        body: The body.
        run: Its run.
    """

    def __init__(self, body: Any, run: Run) -> None:
        self._body = body
        self._run = run

    def __await__(self) -> Generator[Any, Any, Any]:
        """Pass everything through, as ``yield from`` does, but for that cancellation."""
        body = self._body.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                awaited = body.send(value) if error is None else body.throw(error)
            except StopIteration as end:
                return end.value
            value = error = None
            try:
                value = yield awaited
            except GeneratorExit:
                body.close()
                raise
            except asyncio.CancelledError as cancelled:
                error = self._meant(cancelled)
            except BaseException as other:  # noqa: BLE001 - the body's
                error = other

    def _meant(self, cancelled: asyncio.CancelledError) -> BaseException:
        run, task = self._run, self._run.asyncio_task
        if not run.is_soft_due or task is None:
            return cancelled
        run.is_soft_due = False
        # Somebody else may have cancelled it in the same turn, and that counts more.
        return cancelled if task.uncancel() else SoftTimeout("the soft time limit is reached")
