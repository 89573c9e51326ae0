"""Run async bodies: long-lived coroutines, so that a delivery costs no new task.

Each delivery still starts from a clean set of context variables: a slot whose body changed one is replaced.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any

from streamwork.context import Context, enter_task, leave_task
from streamwork.errors import WireError
from streamwork.worker.delivery import Run
from streamwork.worker.runner import Runner, unsettled

# Bodies that never wait would keep the loop to themselves: after so many in a row the others get a turn.
_TURN = 32
# What a body may take to hear of its cancellation at the end.
_CLOSE_S = 0.5


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
        work, clean = self._work, self._clean
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
            try:
                await self._execute(run, me)
            except asyncio.CancelledError:
                if not run.is_over:
                    raise
                return  # cancelled just as it ended: a clean slot takes over
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
        timeout_s = runner.timeout_s(run)
        if timeout_s is not None:
            run.timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, run, timeout_s)
        task = run.task
        assert task is not None
        try:
            args, kwargs = runner.arguments(run)
        except BaseException as error:  # noqa: BLE001 - reading arguments may run the user's code
            self._close_run(run)
            self._after_error(run, error, me, is_read=False)
            return
        try:
            value = await task.function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - whatever the body raises is its outcome
            self._close_run(run)
            self._after_error(run, error, me)
        else:
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
        if run.timer is not None:
            run.timer.cancel()

    def _after_error(self, run: Run, error: BaseException, me: asyncio.Task[None], is_read: bool = True) -> None:
        try:
            if not is_read and isinstance(error, WireError):
                self._runner.unreadable(run, error)
            elif isinstance(error, asyncio.CancelledError) and me.cancelling():
                if run.stop_reason == "timeout":
                    limit_s = self._runner.timeout_s(run)
                    self._runner.raised(run, TimeoutError(f"not ended within {limit_s:g} s"))
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
    def _expire(run: Run, _timeout_s: float) -> None:
        if not run.is_over and run.asyncio_task is not None:
            run.stop_reason = "timeout"
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
