"""Run sync bodies in threads.

A thread cannot be stopped from outside. At the hard limit its delivery is settled as a timeout and its slot freed; the
thread itself is abandoned to finish unheard, and another one takes its place. Where its run is to be ended the same is
done, and CancelledError is raised in it besides; at the soft limit it is SoftTimeout. CPython raises either in a thread
as soon as that runs Python code again: not within a call that blocks in C, such as a long sleep or a query.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from streamwork.context import Context, enter_run, enter_thread
from streamwork.errors import SoftTimeout, WireError
from streamwork.worker.delivery import Run
from streamwork.worker.limits import Limits, disarm, overdue
from streamwork.worker.runner import Runner, unsettled

_NO_SPAN = contextlib.nullcontext()
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
        # Who holds this decides whether a body has begun and whether it has ended, for the loop and its thread alike.
        self._door = threading.Lock()
        self._queued: dict[Run, None] = {}
        self._limits = Limits(self._soften, self._expire)

    @property
    def queued(self) -> int:
        """Deliveries that no thread has begun."""
        return len(self._queued)

    def submit(self, run: Run) -> None:
        """Take a delivery."""
        self._submitted += 1
        self._queued[run] = None
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
        waiting = len(self._queued)
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
            if not self._begin(run):
                continue
            # The contexts of two deliveries must not meet, and copying an empty one is cheap.
            abandoned = contextvars.Context().run(self._execute, run)
            if abandoned:
                return

    def _begin(self, run: Run) -> bool:
        """Take a delivery off the queue; False where it was given back, or cancelled, while it waited."""
        with self._door:
            is_here = run in self._queued
            if is_here:
                del self._queued[run]
                run.thread = threading.get_ident()
            return is_here and not run.is_over

    def _execute(self, run: Run) -> bool:
        runner, task = self._runner, run.task
        assert task is not None
        value: Any = None
        failure: BaseException | None = None
        is_readable, is_abandoned = True, False
        enter_run(runner.context, run)  # until the context of this call is gone
        try:
            runner.start(run, self._numbers.popleft())
            soft_s, hard_s = runner.soft_timeout_s(run), runner.timeout_s(run)
            if soft_s is not None or hard_s is not None:
                self._limits.begin(run, hard_s)
                self._loop.call_soon_threadsafe(self._limits.arm, run, soft_s, hard_s)
            args, kwargs = runner.arguments(run)
            try:
                with runner.span(run) or _NO_SPAN:
                    value = task.function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whatever the body raises is its outcome
                failure = error
        except BaseException as error:  # noqa: BLE001 - reading arguments may run the user's code
            is_readable, failure = False, error
        while True:
            try:
                is_abandoned = self._end(run)
                break
            except asyncio.CancelledError:
                pass  # raised from outside, it arrives behind the body
        if is_abandoned:
            return True
        if not is_readable:
            run.stop_reason = "unreadable"
        self._done.append((run, value, failure))
        if not self._armed:
            self._armed = True
            self._call_loop(self._collect)
        return False

    def _end(self, run: Run) -> bool:
        """Let nothing be raised in this thread from now on; True where its run was ended without it."""
        with self._door:
            thread, run.thread = run.thread, 0
        if thread and run.is_interrupted:
            _raise_in(thread, None)
        return run.stop_reason in ("timeout", "cancelled")

    def _call_loop(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass  # the loop is closed: an abandoned thread has ended at last

    def _soften(self, run: Run) -> None:
        with self._door:
            if run.thread and not run.stop_reason:
                run.is_interrupted = True
                _raise_in(run.thread, SoftTimeout)

    def _expire(self, run: Run) -> None:
        if self._abandon(run, "timeout"):
            self._without(run, lambda: self._runner.raised(run, overdue(run)))

    def withdraw(self, run: Run) -> bool:
        """Take back a delivery that no thread has begun; False where it is not such a one."""
        with self._door:
            is_here = run in self._queued
            if is_here:
                del self._queued[run]
            return is_here

    def terminate(self, run: Run) -> None:
        """End a run whose thread is abandoned, with CancelledError raised in it."""
        if run.thread and run.slot < 0:  # its thread has just taken it, and is about to note that
            self._loop.call_later(_PATIENCE_S, self.terminate, run)
        elif self._abandon(run, "cancelled"):
            self._without(run, lambda: self._runner.cancelled(run))

    def _abandon(self, run: Run, reason: str) -> bool:
        """Go on without the thread of a run; False where its body has ended, and its outcome is on its way."""
        with self._door:
            if not run.thread or run.is_over:
                return False
            run.stop_reason = reason
            if reason == "cancelled":
                run.is_interrupted = True
                _raise_in(run.thread, asyncio.CancelledError)
            return True

    def _without(self, run: Run, settle: Callable[[], None]) -> None:
        self._threads -= 1  # its place is free: the next delivery may start another thread
        self._close(run)
        try:
            settle()
        except Exception as wrong:  # noqa: BLE001 - the slot must be free whatever it was
            unsettled(run, wrong)
        finally:
            self._freed(run)
        if self._queued and self._threads < self._most:
            self._start_thread()

    def _close(self, run: Run) -> None:
        run.is_over = True
        disarm(run)

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
        with self._door:
            self._queued.clear()

    def close(self) -> None:
        """Let idle threads end."""
        if self._growing is not None:
            self._growing.cancel()
        for _ in range(self._threads):
            self._work.put(None)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise an exception in a thread at its next step in Python; None takes one back that has not been raised yet."""
    what = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)
