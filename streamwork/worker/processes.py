"""Run sync bodies in processes that can be killed (``executor="process"``), through pebble's pool.

Arguments and results cross as stored bytes, and errors as verdicts, so nothing of the user's is pickled.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import importlib.util
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from streamwork.app import Streamwork
from streamwork.context import Context, enter_thread, leave_thread
from streamwork.errors import ConfigError, WireError
from streamwork.model.judge import Dead, Verdict, judge, text_of, traceback_text, type_name
from streamwork.model.policy import Retry
from streamwork.task import Task
from streamwork.worker.delivery import Run
from streamwork.worker.runner import Runner

_PR_SET_PDEATHSIG = 1


def require_pebble() -> None:
    """Raise ConfigError where the extra ``process`` is not installed."""
    if importlib.util.find_spec("pebble") is None:
        raise ConfigError("executor='process' needs pebble: pip install 'streamwork[process]'")


class ProcessExecutor:
    """The killable processes of one worker process: as many as there are cores, started when needed."""

    def __init__(self, app: Streamwork, runner: Runner, numbers: deque[int], freed: Callable[[Run], None]) -> None:
        import pebble  # an extra

        self._expired = pebble.ProcessExpired
        self._runner = runner
        self._numbers = numbers
        self._freed = freed
        self._loop = asyncio.get_running_loop()
        self._futures: dict[Run, Future[Any]] = {}
        self._pool = pebble.ProcessPool(
            max_workers=os.cpu_count() or 1,
            context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(
                os.getpid(),
                sorted({task.function.__module__ for task in app.tasks.values() if task.executor == "process"}),
            ),
        )

    @property
    def running(self) -> int:
        """Deliveries in the pool."""
        return len(self._futures)

    def submit(self, run: Run) -> None:
        """Take a delivery."""
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
        place = (task.function.__module__, task.function.__qualname__)
        future: Future[Any] = self._pool.schedule(
            run_in_process,
            args=(place, bytes(message.args), bytes(message.kwargs), facts, override),
            timeout=runner.timeout_s(run),
        )
        self._futures[run] = future
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._collect, run, done))

    def _collect(self, run: Run, future: Future[Any]) -> None:
        self._futures.pop(run, None)
        if run.is_over:
            return
        run.is_over = True
        self._numbers.append(run.slot)
        try:
            kind, value = future.result(timeout=0)
        except CancelledError:
            run.stop_reason = "released"
            run.is_over = False
        except TimeoutError:
            self._runner.raised(
                run, TimeoutError(f"not ended within {self._runner.timeout_s(run):g} s; its process was killed")
            )
        except self._expired as error:
            self._runner.crashed(run, f"its process ended with status {error.exitcode}")
        except Exception as error:  # noqa: BLE001 - the pool's own trouble is this delivery's failure
            self._runner.raised(run, error)
        else:
            if kind == "value":
                self._runner.ended(run, value)
            else:
                self._runner.settle_verdict(run, value)
        self._freed(run)

    def cancel_all(self) -> None:
        """Kill what runs; it is given back."""
        for future in list(self._futures.values()):
            future.cancel()

    def close(self) -> None:
        """End the processes."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join(timeout=5)


def _begin(parent: int, modules: list[str]) -> None:
    # Ctrl-C goes to the whole group; only the worker decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before the call above
    for module in modules:
        importlib.import_module(module)


def run_in_process(
    place: tuple[str, str],
    args: bytes,
    kwargs: bytes,
    facts: dict[str, Any],
    override: tuple[int, float, float, float, bool] | None,
) -> tuple[str, bytes | Verdict]:
    """Run one body in a pool process; answers ("value", packed result) or ("verdict", what judge decided)."""
    found: Any = importlib.import_module(place[0])
    for part in place[1].split("."):
        found = getattr(found, part)
    task: Task[..., Any] = found
    context: Context[Any] = Context(task.name)
    for name, value in facts.items():
        setattr(context, name, value)
    try:
        positional, named = task.signature.inject(*task.signature.decode(args, kwargs), context)
    except WireError as error:
        return "verdict", Dead("failed", type_name(error), text_of(error), "")
    enter_thread(lambda: context)
    try:
        value = task.function(*positional, **named)
        return "value", task.signature.encode_result(value)
    except WireError as error:
        return "verdict", Dead("failed", type_name(error), text_of(error), traceback_text(error))
    except BaseException as error:  # noqa: BLE001 - whatever the body raises is its outcome
        policies = (Retry(override[0], (Exception,), *override[1:]),) if override is not None else task.retry
        return "verdict", judge(error, context.attempt, policies)
    finally:
        leave_thread()
