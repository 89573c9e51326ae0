"""Run async bodies: long-lived coroutines, so that a delivery costs no new task.

Each delivery still starts from a clean set of context variables: a slot whose body changed one is replaced.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from streamwork.context import Context, enter_run, enter_task, leave_run, leave_task
from streamwork.errors import WireError
from streamwork.worker.delivery import Run
from streamwork.worker.limits import Limits, Steered, disarm, overdue
from streamwork.worker.runner import Runner, unsettled

logger = logging.getLogger(__name__)

# Bodies that never wait would keep the loop to themselves: after so many in a row the others get a turn.
_TURN = 32
# What a body may take to hear of its cancellation at the end.
_CLOSE_S = 0.5
# And what it may take for that at its hard limit, before another one takes its slot: it may have to wait for others.
_IGNORED_S = 10.0


class AsyncSlots:
    """The slots of one process for async bodies.

    Args:
        runner: The steps.
        numbers: Free rows of the slot table; the worker puts them back.
        freed: Called when a delivery left its slot.
    """

    def __init__(self, runner: Runner, numbers: deque[int], freed: Callable[[Run], None]) -> None:
        self._runner = runner
        self._numbers = numbers
        self._freed = freed
        self._work: deque[Run] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._returned: list[tuple[Run, bytes]] = []
        self._waking = 0
        self._running = 0
        self._ending = False
        self._clean = contextvars.copy_context()
        self._limits = Limits(self._soften, self._expire)

    @property
    def queued(self) -> int:
        """Deliveries that no slot has begun."""
        return len(self._work)

    @property
    def running(self) -> int:
        """Deliveries whose body has begun and not ended."""
        return self._running

    def submit(self, run: Run) -> None:
        """Take a delivery; a slot begins it as soon as the loop turns."""
        self._work.append(run)
        # While this runs no slot does, so whatever counts as running waits for something: such bodies get a slot each
        # at once. Bodies that never wait are done fastest by one slot after another.
        if not self._waking or (self._running and self._waking < len(self._work)):
            self._wake_one()

    def _wake_one(self) -> None:
        idle = self._idle
        self._waking += 1
        while idle:
            future = idle.popleft()
            if not future.done():
                future.set_result(None)
                return
        task = asyncio.get_running_loop().create_task(self._slot(), name="streamwork-slot", context=self._clean.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _slot(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        work, clean, make = self._work, self._clean, self._runner.context
        run: Run | None = None

        def context() -> Context[Any]:
            assert run is not None  # bodies ask, and they belong to one
            return self._runner.context(run)

        enter_task(me, context)
        me.add_done_callback(leave_task)
        self._waking -= 1
        turns = 0
        while True:
            while not work:
                await self._wait_for_work()
                turns = 0
            run = work.popleft()
            if work and not self._waking:
                self._wake_one()
            token = enter_run(make, run)
            try:
                await self._execute(run, me)
            except asyncio.CancelledError:
                if not run.is_over:
                    raise
                return  # cancelled just as it ended: a clean slot takes over
            leave_run(token)
            if contextvars.copy_context() != clean or me.cancelling():
                if work and not self._waking:
                    self._wake_one()
                return
            turns += 1
            if turns == _TURN:
                turns = 0
                await asyncio.sleep(0)

    async def _wait_for_work(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # Woken, then cancelled by something that an earlier body left behind: another one takes the work.
                self._waking -= 1
                if self._work:
                    self._wake_one()
            raise
        self._waking -= 1

    async def _execute(self, run: Run, me: asyncio.Task[None]) -> None:
        runner = self._runner
        self._running += 1
        runner.start(run, self._numbers.popleft())
        run.asyncio_task = me
        soft_s, hard_s = runner.soft_timeout_s(run), runner.timeout_s(run)
        if soft_s is not None or hard_s is not None:
            self._limits.begin(run, hard_s)
            self._limits.arm(run, soft_s, hard_s)
        task = run.task
        assert task is not None
        try:
            args, kwargs = runner.arguments(run)
        except BaseException as error:  # noqa: BLE001 - reading arguments may run the user's code
            self._close_run(run)
            self._after_error(run, error, me, is_read=False)
            return
        try:
            if runner.spans is None or (span := runner.span(run)) is None:
                body = task.function(*args, **kwargs)
                value = await (body if soft_s is None else Steered(body, run))
            else:
                with span:
                    body = task.function(*args, **kwargs)
                    value = await (body if soft_s is None else Steered(body, run))
        except BaseException as error:  # noqa: BLE001 - whatever the body raises is its outcome
            if not run.is_over:  # else it was left behind
                self._close_run(run)
                self._after_error(run, error, me)
        else:
            if not run.is_over:
                self._close_run(run)
                self._after_value(run, value)

    def _after_value(self, run: Run, value: Any) -> None:
        payload: bytes | None = None
        try:
            # Before its slot is free: packing runs the user's code, and who dies of it is to be blamed for it.
            payload = self._runner.packed(run, value)
        except Exception as wrong:  # noqa: BLE001 - the slot must be free whatever it was
            unsettled(run, wrong)
        finally:
            self._freed(run)
        if payload is not None:
            self._returned.append((run, payload))
            if len(self._returned) == 1:
                # In the loop's next turn, behind the reader that was just told of a free slot: outcomes are written
                # down while its read is under way.
                asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Hand the outcomes of bodies that returned to the settler."""
        returned, self._returned = self._returned, []
        for run, payload in returned:
            self._runner.ended(run, payload)

    def _close_run(self, run: Run) -> None:
        run.is_over = True
        self._running -= 1
        if run.timer is not None or run.soft_timer is not None:
            disarm(run)

    def _after_error(self, run: Run, error: BaseException, me: asyncio.Task[None], is_read: bool = True) -> None:
        try:
            if not is_read and isinstance(error, WireError):
                self._runner.unreadable(run, error)
            elif run.stop_reason == "cancelled":
                self._runner.cancelled(run)
            elif isinstance(error, asyncio.CancelledError) and me.cancelling():
                if run.stop_reason == "timeout":
                    self._runner.raised(run, overdue(run))
                elif self._ending:
                    run.stop_reason = "released"
                    run.is_over = False  # it has no outcome: the drain gives it back
                else:
                    self._runner.raised(run, error)  # by itself, or by what an earlier body left behind
            else:
                self._runner.raised(run, error)
        except Exception as wrong:  # noqa: BLE001 - the slot must be free whatever it was
            unsettled(run, wrong)
        finally:
            self._freed(run)

    @staticmethod
    def _soften(run: Run) -> None:
        if not run.is_over and run.asyncio_task is not None and run.stop_reason not in ("timeout", "cancelled"):
            run.is_soft_due = True
            run.asyncio_task.cancel()

    def _expire(self, run: Run) -> None:
        if run.is_over or run.asyncio_task is None:
            return
        if run.stop_reason != "cancelled":
            run.stop_reason = "timeout"
        run.asyncio_task.cancel()
        run.timer = asyncio.get_running_loop().call_later(_IGNORED_S, self._leave_behind, run)

    def _leave_behind(self, run: Run) -> None:
        if run.is_over:
            return
        logger.error("a body ignores its cancellation and is left behind", extra=self._runner.facts(run))
        self._close_run(run)
        try:
            if run.stop_reason == "cancelled":
                self._runner.cancelled(run)
            else:
                self._runner.raised(run, overdue(run))
        except Exception as wrong:  # noqa: BLE001 - the slot must be free whatever it was
            unsettled(run, wrong)
        finally:
            self._freed(run)

    def withdraw(self, run: Run) -> bool:
        """Take back a delivery that no slot has begun; False where it is not such a one."""
        try:
            self._work.remove(run)
        except ValueError:
            return False
        return True

    def terminate(self, run: Run) -> None:
        """Cancel the body of a delivery, once: what it does to clean up is not disturbed."""
        if run.asyncio_task is not None and not run.is_over and run.stop_reason != "cancelled":
            run.stop_reason = "cancelled"
            run.asyncio_task.cancel()

    def cancel_all(self) -> None:
        """Cancel what runs, to be given back, and begin nothing more: a second SIGTERM, or the drain deadline."""
        self._ending = True
        self._work.clear()
        for task in list(self._tasks):
            task.cancel()

    async def close(self) -> None:
        """End the slots; a body that ignores its cancellation is left behind."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)
