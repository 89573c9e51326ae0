"""Run sync bodies in threads.

A thread cannot be stopped from outside. At the time limit its delivery is settled as a timeout and its slot freed; the
thread itself is abandoned to finish unheard, and another one takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from streamwork.context import Context, enter_thread
from streamwork.errors import WireError
from streamwork.worker.delivery import Run
from streamwork.worker.runner import Runner, unsettled

# Threads that start without waiting, and how long the head of the queue may wait before their number doubles: a
# hundred bodies that block have a hundred threads within 30 ms.
_AT_ONCE = 2
_PATIENCE_S = 0.005


class ThreadExecutor:
    """The threads of one process; started when needed, up to a bound.

    Args:
        runner: The steps.
        numbers: Free rows of the slot table, shared with the other executors; the worker puts them back.
        freed: Called on the loop when a delivery left its slot.
        most: Most threads; deliveries beyond wait.
    """

    def __init__(self, runner: Runner, numbers: deque[int], freed: Callable[[Run], None], most: int) -> None:
        self._runner = runner
        self._numbers = numbers
        self._freed = freed
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._done: deque[tuple[Run, Any, BaseException | None]] = deque()
        self._armed = False
        self._threads = 0
        self._idle = 0
        self._submitted = 0
        self._growing: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()

    @property
    def queued(self) -> int:
        """Deliveries that no thread has begun."""
        return self._work.qsize()

    def submit(self, run: Run) -> None:
        """Take a delivery."""
        self._submitted += 1
        self._work.put(run)
        if self._threads < min(_AT_ONCE, self._most) and not self._idle:
            self._start_thread()
        elif self._growing is None and self._threads < self._most:
            self._growing = self._loop.call_later(_PATIENCE_S, self._grow, self._submitted)

    def _start_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._serve, name=f"streamwork-task-{self._threads}", daemon=True).start()

    def _grow(self, submitted: int) -> None:
        # What was in the queue when this was set still waits: the bodies block, so double. Bodies that do not block
        # are done sooner by few threads than by many that fight for the interpreter.
        self._growing = None
        waiting = self._work.qsize()
        if waiting and self._submitted - waiting < submitted:
            for _ in range(min(waiting, self._threads, self._most - self._threads)):
                self._start_thread()
        if waiting and self._threads < self._most:
            self._growing = self._loop.call_later(_PATIENCE_S, self._grow, self._submitted)

    def _serve(self) -> None:
        run: Run | None = None

        def context() -> Context[Any]:
            assert run is not None  # bodies ask, and they belong to one
            return self._runner.context(run)

        enter_thread(context)
        while True:
            with self._lock:
                self._idle += 1
            run = self._work.get()
            with self._lock:
                self._idle -= 1
            if run is None:
                return
            if run.is_over:
                continue  # given back while it waited here
            # The contexts of two deliveries must not meet, and copying an empty one is cheap.
            abandoned = contextvars.Context().run(self._execute, run)
            if abandoned:
                return

    def _execute(self, run: Run) -> bool:
        runner, task = self._runner, run.task
        assert task is not None
        value: Any = None
        failure: BaseException | None = None
        try:
            runner.start(run, self._numbers.popleft())
            timeout_s = runner.timeout_s(run)
            if timeout_s is not None:
                self._loop.call_soon_threadsafe(self._arm_timer, run, timeout_s)
            args, kwargs = runner.arguments(run)
            try:
                value = task.function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whatever the body raises is its outcome
                failure = error
        except BaseException as error:  # noqa: BLE001 - reading arguments may run the user's code
            run.stop_reason = "unreadable"
            failure = error
        self._done.append((run, value, failure))
        if not self._armed:
            self._armed = True
            self._call_loop(self._collect)
        return run.stop_reason == "timeout"

    def _call_loop(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass  # the loop is closed: an abandoned thread has ended at last

    def _arm_timer(self, run: Run, timeout_s: float) -> None:
        if not run.is_over:
            run.timer = self._loop.call_later(timeout_s, self._expire, run, timeout_s)

    def _expire(self, run: Run, timeout_s: float) -> None:
        self._collect()  # it may have ended just now, and then its thread lives on
        if run.is_over:
            return
        run.stop_reason = "timeout"
        self._threads -= 1  # its place is free: the next delivery may start another thread
        self._close(run)
        try:
            self._runner.raised(run, TimeoutError(f"not ended within {timeout_s:g} s"))
        except Exception as wrong:  # noqa: BLE001 - the slot must be free whatever it was
            unsettled(run, wrong)
        finally:
            self._freed(run)
        if self._work.qsize() and self._threads < self._most:
            self._start_thread()

    def _close(self, run: Run) -> None:
        run.is_over = True
        if run.timer is not None:
            run.timer.cancel()

    def _collect(self) -> None:
        # Cleared first: what a thread adds from here on asks for another turn.
        self._armed = False
        done, runner = self._done, self._runner
        while done:
            run, value, failure = done.popleft()
            if run.is_over:
                continue
            self._close(run)
            try:
                if failure is None:
                    runner.finished(run, value)
                elif run.stop_reason == "unreadable" and isinstance(failure, WireError):
                    runner.unreadable(run, failure)
                else:
                    runner.raised(run, failure)
            except Exception as wrong:  # noqa: BLE001 - the slot must be free whatever it was
                unsettled(run, wrong)
            finally:
                self._freed(run)

    def forget_queued(self) -> None:
        """Begin nothing more; what no thread has begun is given back."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._work.get_nowait()

    def close(self) -> None:
        """Let idle threads end."""
        if self._growing is not None:
            self._growing.cancel()
        for _ in range(self._threads):
            self._work.put(None)
