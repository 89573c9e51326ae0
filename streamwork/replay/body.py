"""One past delivery, and its body run in this thread or on this loop, judged as a worker would judge it."""

from __future__ import annotations

import asyncio
import contextvars
import time
from bdb import BdbQuit
from collections.abc import Callable
from typing import Any, NamedTuple

from streamwork.broker.plans import planned
from streamwork.context import Context, enter_task, enter_thread, leave_task, leave_thread
from streamwork.errors import NotSent, WireError
from streamwork.model.judge import Again, Dead, Skipped, decide, text_of, traceback_text, type_name
from streamwork.model.replay import Ran
from streamwork.replay.capture import Capture
from streamwork.task import Task
from streamwork.wire.message import TaskMessage

INCOMPATIBLE, CRASHED = "incompatible", "crashed"
_Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Body = Callable[..., Any]


class Delivery(NamedTuple):
    """A past delivery that can run.

    Attributes:
        task: What runs.
        message: What was asked.
        queue, lane: Where it was.
        attempt, crashes: As they were then.
        how: What `Context.replay` says.
    """

    task: Task[..., Any]
    message: TaskMessage
    queue: str
    lane: str
    attempt: int
    crashes: int
    how: str

    @property
    def fence(self) -> str:
        """What tells it from every delivery of a worker, and from the others of this replay."""
        return f"replay/{self.message.id}/{self.attempt}"

    @property
    def timeout_s(self) -> float | None:
        """The hard limit, the message's own or the task's; None = none."""
        options = self.message.options
        if options is not None and options.timeout_ms is not None:
            return options.timeout_ms / 1000 or None
        return self.task.timeout_s

    def context(self, resources: Any = None) -> Context[Any]:
        """Return the context that its body had, but for the fence."""
        context: Context[Any] = Context(self.message.task, resources)
        context.task_id, context.queue, context.lane = self.message.id, self.queue, self.lane
        context.attempt, context.crashes = self.attempt, self.crashes
        context.fence, context.replay = self.fence, self.how
        options = self.message.options
        if options is not None and options.headers is not None:
            context.schedule, context.scheduled_at = planned(options.headers)
        return context


class _Ended(NamedTuple):
    value: Any = None
    error: BaseException | None = None
    took_ms: float = 0.0


def run_here(delivery: Delivery, capture: Capture, resources: Any = None, body: Body | None = None) -> Ran:
    """Run a sync body in this thread and return what it did, whatever that was.

    Args:
        delivery: Which.
        capture: What takes its sends.
        resources: What `ctx.resources` is.
        body: Runs in place of the task's function, with that before the arguments; a debugger.
    """
    context = delivery.context(resources)
    arguments = _arguments(delivery, context)
    if isinstance(arguments, Ran):
        return arguments
    ended = contextvars.copy_context().run(_call, delivery.task.function, arguments, context, body)
    return judged(delivery, ended.value, ended.error, ended.took_ms, capture)


def _call(function: Body, arguments: _Arguments, context: Context[Any], body: Body | None) -> _Ended:
    args, kwargs = arguments
    enter_thread(lambda: context)
    begun_s = time.perf_counter()
    try:
        value = function(*args, **kwargs) if body is None else body(function, *args, **kwargs)
    except BdbQuit:
        raise
    except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - the body's outcome
        return _Ended(None, error, _since_ms(begun_s))
    finally:
        leave_thread()
    return _Ended(value, None, _since_ms(begun_s))


async def arun_here(
    delivery: Delivery, capture: Capture, resources: Any = None, body: Body | None = None, *, is_timed: bool = True
) -> Ran:
    """Run an async body on this loop, in an asyncio task of its own; as `run_here`, within its hard limit."""
    context = delivery.context(resources)
    arguments = _arguments(delivery, context)
    if isinstance(arguments, Ran):
        return arguments
    limit_s = delivery.timeout_s if is_timed else None
    running = asyncio.create_task(_acall(delivery.task.function, arguments, context, body, limit_s))
    try:
        ended = await running
    finally:
        running.cancel()
    return judged(delivery, ended.value, ended.error, ended.took_ms, capture)


async def _acall(
    function: Body, arguments: _Arguments, context: Context[Any], body: Body | None, limit_s: float | None
) -> _Ended:
    args, kwargs = arguments
    task = asyncio.current_task()
    assert task is not None
    enter_task(task, lambda: context)
    begun_s, limit = time.perf_counter(), asyncio.timeout(limit_s)
    try:
        async with limit:
            value = await (function(*args, **kwargs) if body is None else body(function, *args, **kwargs))
    except asyncio.CancelledError as error:
        if task.cancelling():
            raise  # by whoever waits for this, not by the body
        return _Ended(None, error, _since_ms(begun_s))
    except BdbQuit:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the body's outcome
        if isinstance(error, TimeoutError) and limit.expired():
            error = timed_out(limit_s)
        return _Ended(None, error, _since_ms(begun_s))
    finally:
        leave_task(task)
    return _Ended(value, None, _since_ms(begun_s))


def timed_out(limit_s: float | None) -> TimeoutError:
    """Return what a body has raised that did not end in time."""
    return TimeoutError(f"not ended within {limit_s or 0:g} s")


def judged(delivery: Delivery, value: Any, error: BaseException | None, took_ms: float, capture: Capture) -> Ran:
    """Return what a worker would have settled for this attempt, and what was sent."""
    sends, waited = capture.take(delivery.fence), delivery.fence in capture.waited or isinstance(error, NotSent)
    if error is None:
        try:
            packed = delivery.task.signature.encode_result(value)
            return Ran(state="succeeded", result=packed, took_ms=took_ms, sends=sends, waited=waited)
        except BaseException as wrong:  # noqa: BLE001 - also the user's code
            verdict: Any = Dead("failed", type_name(wrong), text_of(wrong), traceback_text(wrong))
            error = wrong
    else:
        carried = delivery.message.options.retry if delivery.message.options is not None else None
        verdict = decide(error, delivery.attempt, delivery.task.retry, carried)
    if isinstance(verdict, Skipped):
        return Ran(state="skipped", detail=verdict.reason, took_ms=took_ms, sends=sends, waited=waited)
    return Ran(
        state="retried" if isinstance(verdict, Again) else "dead", error_type=verdict.type_name,
        detail=verdict.message, digest=verdict.digest, traceback=traceback_text(error), took_ms=took_ms, sends=sends,
        waited=waited,
    )  # fmt: skip


def crashed(evidence: str, took_ms: float = 0.0) -> Ran:
    """Return what a body did that took its process along."""
    return Ran(state=CRASHED, error_type="Crashed", detail=evidence, took_ms=took_ms)


def _arguments(delivery: Delivery, context: Context[Any]) -> _Arguments | Ran:
    signature, message = delivery.task.signature, delivery.message
    try:
        args, kwargs = signature.decode(message.args, message.kwargs)
    except (WireError, ValueError, TypeError) as error:
        return Ran(state=INCOMPATIBLE, error_type=type_name(error), detail=text_of(error))
    return signature.inject(args, kwargs, context)


def _since_ms(begun_s: float) -> float:
    return (time.perf_counter() - begun_s) * 1000
