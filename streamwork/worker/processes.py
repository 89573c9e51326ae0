"""Run sync bodies in processes that can be killed (``executor="process"``), through pebble's pool.

Arguments and results cross as stored bytes, and errors as verdicts, so nothing of the user's is pickled.
"""

from __future__ import annotations

import asyncio
import importlib.util
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
from streamwork.worker.pool import Pool
from streamwork.worker.pooled import READY, Words, places_of
from streamwork.worker.runner import Runner, unsettled

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
    """The killable processes of one worker process; they start in the background, at once.

    Args:
        app: Whose tasks they run; they import it themselves.
        runner: The steps.
        numbers: Free rows of the slot table; the worker puts them back.
        freed: Called on the loop when a delivery left its slot.
        most: Most processes.

    Raises:
        ConfigError: A new process could not find one of the tasks.
    """

    def __init__(
        self, app: Streamwork, runner: Runner, numbers: deque[int], freed: Callable[[Run], None],
        most: int,
    ) -> None:  # fmt: skip
        import pebble  # an extra

        self._pebble = pebble
        self._app = app
        self._runner = runner
        self._numbers = numbers
        self._freed = freed
        self._loop = asyncio.get_running_loop()
        self._most = most
        self._places = places_of(app)
        self._waiting: deque[Run] = deque()
        self._futures: dict[Run, Future[Any]] = {}
        self._calls: dict[Run, _PoolCall] = {}
        self._limits = Limits(lambda _: None, self._expire)
        self._by_token: dict[str, Run] = {}
        self._words = Words(self._hear)
        modules = sorted({place.module for place in self._places.values()})
        self._pool = Pool(most, modules, self._words.writer, self._there, self._gone)

    async def warm(self) -> None:
        """Wait until the processes can begin a body at once, or it is clear that they cannot be started."""
        await self._pool.warm()

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
            if not self._pool.is_there:
                self._pool.want()
                return
            run = self._waiting.popleft()
            if not self._is_given_back(run):
                self._begin(run)
                self._send(run)

    def _is_given_back(self, run: Run) -> bool:
        if run.is_over and run in self._calls:
            self._forget(run)
        return run.is_over

    def _begin(self, run: Run) -> None:
        if run in self._calls:
            return  # it was sent to a pool that gave up
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
        runner.span(run)  # its process may be killed, so it begins and ends here
        facts["trace"] = (
            None if run.span is None else (run.span.traceparent, self._app.name, self._app.config.telemetry)
        )
        work = (task.name, self._places[task.name], bytes(message.args), bytes(message.kwargs), facts, override)
        self._calls[run] = _PoolCall(work)
        self._by_token[run.token] = run

    def _send(self, run: Run) -> None:
        call = self._calls[run]
        call.times += 1
        try:
            future = self._pool.schedule(call.work)
        except RuntimeError as error:
            self._send_again(run, error)
            return
        self._futures[run] = future
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._collect, run, done))

    def _hear(self, token: str, span_s: float) -> None:
        """Hear from a process that it is ready, a body begins, or (> 0) asks for so much time from now."""
        if token == READY:
            self._pool.heard_ready(int(span_s))
            return
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
        if run in self._calls:
            self._forget(run)
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

    def _there(self, error: Exception | None) -> None:
        """Hear that there is a pool, or why none could be started."""
        if error is None:
            self._begin_next()
            return
        waiting = list(self._waiting)
        self._waiting.clear()
        for run in waiting:
            if not self._is_given_back(run):
                self._begin(run)
                self._fail(run, error)

    def _gone(self) -> None:
        """Hear that the pool gave up: what it was given goes to the next one."""
        for run in [run for run, future in self._futures.items() if not future.done()]:
            del self._futures[run]
            self._send_again(run, BrokenProcessPool("its process pool gave up"))
        self._begin_next()

    def _send_again(self, run: Run, error: Exception) -> None:
        disarm(run)
        if run.is_over:
            self._forget(run)
        elif self._calls[run].times < _TIMES:
            self._waiting.appendleft(run)
        else:
            self._fail(run, error)

    def _collect(self, run: Run, future: Future[Any]) -> None:
        if self._futures.get(run) is not future:
            return  # sent anew meanwhile
        del self._futures[run]
        if not run.is_over and not future.cancelled() and isinstance(future.exception(), BrokenProcessPool):
            self._send_again(run, BrokenProcessPool(str(future.exception())))
            self._pool.look()
            self._begin_next()
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
        sent = [run for run in self._waiting if run in self._calls]
        self._waiting.clear()
        for run in sent:
            self._forget(run)
            run.stop_reason = "released"
            self._freed(run)
        for future in list(self._futures.values()):
            future.cancel()

    def close(self) -> None:
        """End the processes."""
        self._pool.close()
        self._words.close()
