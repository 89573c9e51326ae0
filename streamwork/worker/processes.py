"""Run sync bodies in processes that can be killed (``executor="process"``), through pebble's pool.

Arguments and results cross as stored bytes, and errors as verdicts, so nothing of the user's is pickled.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from streamwork.app import Streamwork
from streamwork.errors import AppBroken, ConfigError
from streamwork.worker.delivery import Run
from streamwork.worker.limits import Limits, disarm, extend, overdue
from streamwork.worker.pooled import PoolContext, Words, begin, places_of, run_in_process
from streamwork.worker.runner import Runner, unsettled

# How soon it is noticed that a pool gave up and forgot what it had been given, seconds.
_LOOK_S = 1.0
# A delivery is sent to a pool so often; after that the trouble is not a process that died idle.
_TIMES = 3


@dataclass(slots=True)
class _PoolCall:
    """What crosses to the pool for one delivery, and how often it was sent there."""

    work: tuple[Any, ...]
    times: int = 0


def require_pebble() -> None:
    """Raise ConfigError where the extra ``process`` is not installed."""
    if importlib.util.find_spec("pebble") is None:
        raise ConfigError("executor='process' needs pebble: pip install '<path to the clone>[process]'")


class ProcessExecutor:
    """The killable processes of one worker process, started when needed.

    Args:
        app: Whose tasks they run; they import it themselves.
        runner: The steps.
        numbers: Free rows of the slot table; the worker puts them back.
        freed: Called on the loop when a delivery left its slot.
        most: Most processes; None = as many as there are cores.

    Raises:
        ConfigError: A new process could not find one of the tasks.
    """

    def __init__(
        self, app: Streamwork, runner: Runner, numbers: deque[int], freed: Callable[[Run], None],
        most: int | None = None,
    ) -> None:  # fmt: skip
        import pebble  # an extra

        self._pebble = pebble
        self._runner = runner
        self._numbers = numbers
        self._freed = freed
        self._loop = asyncio.get_running_loop()
        self._most = most or os.cpu_count() or 1
        self._places = places_of(app)
        self._waiting: deque[Run] = deque()
        self._futures: dict[Run, Future[Any]] = {}
        self._calls: dict[Run, _PoolCall] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._limits = Limits(lambda _: None, self._expire)
        self._by_token: dict[str, Run] = {}
        self._words = Words(self._hear)
        self._pool = self._new_pool()

    def _new_pool(self) -> Any:
        modules = sorted({place.module for place in self._places.values()})
        return self._pebble.ProcessPool(
            max_workers=self._most, context=PoolContext(), initializer=begin,
            initargs=(os.getpid(), modules, self._words.writer),
        )  # fmt: skip

    @property
    def running(self) -> int:
        """Deliveries in the pool."""
        return len(self._futures)

    def submit(self, run: Run) -> None:
        """Take a delivery; it begins when a process is free, since what has begun is blamed for a crash (rule 17)."""
        self._waiting.append(run)
        self._begin_next()

    def _begin_next(self) -> None:
        while self._waiting and len(self._futures) < self._most:
            run = self._waiting.popleft()
            if not run.is_over:  # given back while it waited here
                self._begin(run)

    def _begin(self, run: Run) -> None:
        runner, message, task = self._runner, run.message, run.task
        assert message is not None and task is not None  # noqa: PT018 - admit went first
        runner.start(run, self._numbers.popleft())
        context = runner.context(run)
        facts = {
            "task_id": context.task_id,
            "queue": context.queue,
            "lane": context.lane,
            "attempt": context.attempt,
            "crashes": context.crashes,
            "fence": context.fence,
        }
        override = message.options.retry if message.options is not None else None
        facts["soft_s"] = runner.soft_timeout_s(run)
        work = (task.name, self._places[task.name], bytes(message.args), bytes(message.kwargs), facts, override)
        self._calls[run] = _PoolCall(work)
        self._by_token[run.token] = run
        self._send(run)

    def _send(self, run: Run) -> None:
        call = self._calls[run]
        call.times += 1
        try:
            future = self._schedule(call)
        except RuntimeError as error:  # no process can be started now
            self._fail(run, error)
            return
        self._futures[run] = future
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._collect, run, done))
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_S, self._look)

    def _hear(self, token: str, span_s: float) -> None:
        """Hear from a process that a body begins, or (> 0) asks for so much time from now."""
        run = self._by_token.get(token)
        if run is None:
            return
        if span_s:
            extend(run, span_s)
        else:
            hard_s = self._runner.timeout_s(run)
            disarm(run)
            self._limits.begin(run, hard_s)
            self._limits.arm(run, None, hard_s)

    def _expire(self, run: Run) -> None:
        self._words.listen()  # what asks for more time may be there already
        if run.limit_at_s > time.monotonic():
            self._limits.again(run)
        else:
            self._kill(run, "timeout")

    def _kill(self, run: Run, reason: str) -> None:
        future = self._futures.get(run)
        if future is not None and not run.is_over and future.cancel():
            run.stop_reason = reason

    def withdraw(self, run: Run) -> bool:
        """Take back a delivery that waits for a process; False where it is not such a one."""
        try:
            self._waiting.remove(run)
        except ValueError:
            return False
        return True

    def terminate(self, run: Run) -> None:
        """Kill the process in which a delivery runs."""
        self._kill(run, "cancelled")

    def _forget(self, run: Run) -> None:
        disarm(run)
        del self._calls[run]
        self._by_token.pop(run.token, None)

    def _fail(self, run: Run, error: Exception) -> None:
        self._forget(run)
        run.is_over = True
        self._runner.raised(run, error)
        self._freed(run)

    def _schedule(self, call: _PoolCall) -> Future[Any]:
        try:
            return self._pool.schedule(run_in_process, args=call.work)  # type: ignore[no-any-return]
        except RuntimeError:
            self._replace()
            return self._pool.schedule(run_in_process, args=call.work)  # type: ignore[no-any-return]

    def _replace(self) -> None:
        # The pool gives up for good when a process of it dies while none of them has anything to do. What it was given
        # in that moment it forgets, and tells nobody; none of that had begun.
        broken, self._pool = self._pool, self._new_pool()
        self._loop.run_in_executor(None, _end, broken)
        for run in [run for run, future in self._futures.items() if not future.done()]:
            del self._futures[run]
            self._send_again(run, BrokenProcessPool("its process pool gave up"))

    def _send_again(self, run: Run, error: Exception) -> None:
        disarm(run)
        if run.is_over:
            self._forget(run)
        elif self._calls[run].times < _TIMES:
            self._send(run)
        else:
            self._fail(run, error)
            self._begin_next()

    def _look(self) -> None:
        self._looking = None
        if self._futures:
            if not self._pool.active:
                self._replace()
            self._looking = self._looking or self._loop.call_later(_LOOK_S, self._look)

    def _collect(self, run: Run, future: Future[Any]) -> None:
        if self._futures.get(run) is not future:
            return  # sent anew meanwhile
        del self._futures[run]
        if not run.is_over and not future.cancelled() and isinstance(future.exception(), BrokenProcessPool):
            self._send_again(run, BrokenProcessPool(str(future.exception())))
            return
        self._forget(run)
        if run.is_over:
            return
        run.is_over = True
        try:
            self._settle(run, future)
        except Exception as wrong:  # noqa: BLE001 - the slot must be free whatever it was
            unsettled(run, wrong)
        finally:
            self._freed(run)
            self._begin_next()

    def _settle(self, run: Run, future: Future[Any]) -> None:
        try:
            kind, value = future.result(timeout=0)
        except CancelledError:
            self._settle_killed(run)
        except self._pebble.ProcessExpired as error:
            self._runner.crashed(run, f"its process ended with status {error.exitcode}")
        except AppBroken as error:
            self._runner.raised(run, AppBroken(str(error)))  # without the traceback of its way through the pool
        except Exception as error:  # noqa: BLE001 - the pool's own trouble is this delivery's failure
            self._runner.raised(run, error)
        else:
            if kind == "value":
                self._runner.ended(run, value)
            else:
                self._runner.settle_verdict(run, value)

    def _settle_killed(self, run: Run) -> None:
        if run.stop_reason == "timeout":
            self._runner.raised(run, TimeoutError(f"{overdue(run)}; its process was killed"))
        elif run.stop_reason == "cancelled":
            self._runner.cancelled(run)
        else:
            run.stop_reason = "released"
            run.is_over = False

    def cancel_all(self) -> None:
        """Kill what runs and begin nothing more; all of it is given back."""
        self._waiting.clear()
        for future in list(self._futures.values()):
            future.cancel()

    def close(self) -> None:
        """End the processes."""
        if self._looking is not None:
            self._looking.cancel()
        self._words.close()
        _end(self._pool)


def _end(pool: Any) -> None:
    pool.stop()
    pool.join(timeout=5)
