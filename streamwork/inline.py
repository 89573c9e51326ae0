"""A `Sending` that runs each task where it is enqueued, for tests; `Streamwork.inline` swaps it in."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from streamwork.broker.why import Reason
from streamwork.context import Context, current, enter_task, enter_thread, leave_task, leave_thread
from streamwork.errors import BodyTooLarge, TaskNotFound
from streamwork.guards import refuse_on_loop
from streamwork.handle import Call, Handle
from streamwork.ids import new_task_id
from streamwork.model.judge import Again, Dead, Skipped, Verdict, decide, text_of, traceback_text, type_name
from streamwork.model.state import State
from streamwork.task import Task
from streamwork.wire.message import Failure, TaskMessage, decode_message, encode_message, encode_record, encode_result

R = TypeVar("R")

# A task that raises RetryLater without a bound would otherwise run for ever, since no time passes between its runs.
MOST_RUNS = 1_000
_GONE = b"\nunknown\n"


class Sent(NamedTuple):
    """A task message that was sent inline, and what came of it; `runs` counts attempts, 0 while it runs."""

    message: TaskMessage
    queue: str
    lane: str
    runs: int
    state: State


class InlineSending:
    """Runs task messages in place; implements `Sending` and `Waiting`.

    Args:
        tasks: The app's.
        max_body_bytes: As when sending over Redis.
        resources: For contexts.
    """

    def __init__(self, tasks: Mapping[str, Task[..., Any]], max_body_bytes: int, resources: Any = None) -> None:
        self._tasks = tasks
        self._max_body = max_body_bytes
        self._resources = resources
        self._records: dict[str, bytes] = {}
        self._sent: dict[str, Sent] = {}
        self._local = threading.local()
        self._runners: list[asyncio.Runner] = []

    @property
    def sent(self) -> list[Sent]:
        """What was sent so far, oldest first."""
        return list(self._sent.values())

    def send(self, call: Call[R]) -> Handle[R]:
        """Run a call to its end; async bodies on a loop of this thread's own."""
        refuse_on_loop("enqueue", "aenqueue")
        run = self._begin(call)
        record: bytes | None = None
        while record is None:
            args, kwargs = run.arguments()
            if run.task.is_async:
                body = _inside_task(run, args, kwargs)
                outcome = self._runner().run(body, context=contextvars.copy_context())
            else:
                outcome = contextvars.copy_context().run(_in_thread, run, args, kwargs)
            record = run.record(outcome)
        return self._end(call, run, record)

    async def asend(self, call: Call[R]) -> Handle[R]:
        """Run a call to its end; async bodies on this loop, others in a thread."""
        run = self._begin(call)
        record: bytes | None = None
        while record is None:
            args, kwargs = run.arguments()
            if run.task.is_async:
                outcome = await asyncio.get_running_loop().create_task(_inside_task(run, args, kwargs))
            else:
                outcome = await asyncio.to_thread(_in_thread, run, args, kwargs)
            record = run.record(outcome)
        return self._end(call, run, record)

    def send_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> list[Handle[R]]:
        """Run calls one after another."""
        refuse_on_loop("enqueue_many", "aenqueue_many")
        return [self.send(call) for call in calls]

    async def asend_many(self, calls: Iterable[Call[R]], wait_s: float | None = None) -> list[Handle[R]]:
        """Run calls one after another."""
        return [await self.asend(call) for call in calls]

    def _begin(self, call: Call[Any]) -> _InlineRun:
        task = self._tasks.get(call.task_name)
        if task is None:
            raise TaskNotFound(f"{call.task_name!r} is not declared in this app, so it cannot run in place")
        task_id = new_task_id()
        body = encode_message(task_id, call.task_name, call.args, call.kwargs, call.options, None)
        if len(body) > self._max_body:
            raise BodyTooLarge(call.task_name, len(body), self._max_body)
        message = decode_message(body)
        self._sent[task_id] = Sent(message, call.queue, call.lane, 0, State.RUNNING)
        return _InlineRun(task, message, call, self._resources)

    def _end(self, call: Call[R], run: _InlineRun, record: bytes) -> Handle[R]:
        task_id = run.message.id
        self._sent[task_id] = self._sent[task_id]._replace(runs=run.context.attempt, state=run.state)
        self._records[task_id] = record if run.is_kept else _GONE
        return Handle(self, task_id, call.queue, call.lane, "", call.read_result)

    def _runner(self) -> asyncio.Runner:
        runner: asyncio.Runner | None = getattr(self._local, "runner", None)
        if runner is None:
            runner = self._local.runner = asyncio.Runner()
            self._runners.append(runner)
        return runner

    def wait(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Return the handle's result record; it is always there."""
        refuse_on_loop("result", "aresult")
        return self._records.get(handle.id, _GONE)

    async def await_(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Return the handle's result record; it is always there."""
        return self._records.get(handle.id, _GONE)

    def why_late(self, handle: Handle[Any]) -> str:
        """Answer nothing: what runs in place is never late."""
        return ""

    async def awhy_late(self, handle: Handle[Any]) -> str:
        """Answer nothing: what runs in place is never late."""
        return ""

    def why(self, handle: Handle[Any]) -> list[Reason]:
        """Say how it ended: it ran where it was sent."""
        return [Reason("ended", f"it is {self.state(handle)}: it ran where it was sent")]

    async def awhy(self, handle: Handle[Any]) -> list[Reason]:
        """Say how it ended."""
        return self.why(handle)

    def state(self, handle: Handle[Any]) -> State:
        """Return how it ended."""
        refuse_on_loop("state", "astate")
        return self._state_of(handle.id)

    async def astate(self, handle: Handle[Any]) -> State:
        """Return how it ended."""
        return self._state_of(handle.id)

    def _state_of(self, task_id: str) -> State:
        sent = self._sent.get(task_id)
        return State.UNKNOWN if sent is None else sent.state

    def cancel(self, handle: Handle[Any], terminate: bool) -> str:
        """Answer that it is too late."""
        return "ended"

    async def acancel(self, handle: Handle[Any], terminate: bool) -> str:
        """Answer that it is too late."""
        return "ended"

    def close(self) -> None:
        """Close the loops; handles still answer."""
        if self._runners:
            # In a thread of its own: a loop cannot be closed where another one runs, as in async code.
            closing = threading.Thread(target=self._close_runners, name="streamwork-inline-close")
            closing.start()
            closing.join()
        self._local = threading.local()

    def _close_runners(self) -> None:
        while self._runners:
            self._runners.pop().close()


class _InlineRun:
    """One task message on its way through its attempts."""

    def __init__(self, task: Task[..., Any], message: TaskMessage, call: Call[Any], resources: Any) -> None:
        self.task = task
        self.message = message
        self.state = State.RUNNING
        self.context: Context[Any] = Context(task.name, resources)
        self.context.task_id, self.context.queue, self.context.lane = message.id, call.queue, call.lane
        self.context.fence = f"inline/{message.id}/1"
        options = message.options
        self._retry = None if options is None else options.retry
        self._timeout_s, self._keep_ms = task.timeout_s, task.keep_ms
        if options is not None and options.timeout_ms is not None:
            self._timeout_s = options.timeout_ms / 1000 or None
        if options is not None and options.keep_ms is not None:
            self._keep_ms = options.keep_ms

    @property
    def is_kept(self) -> bool:
        """Whether a result is kept; failures always are for a while."""
        return self._keep_ms > 0 or self.state == State.DEAD

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments as a worker would decode them, the context among them, anew for each run."""
        signature = self.task.signature
        args, kwargs = signature.decode(self.message.args, self.message.kwargs)
        return signature.inject(args, kwargs, self.context)

    async def timed(self, body: Coroutine[Any, Any, Any]) -> Any:
        """Await a body within the time limit."""
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                return await body
        except TimeoutError as error:
            if limit.expired():
                raise TimeoutError(f"not ended within {self._timeout_s:g} s") from error
            raise

    def record(self, outcome: _Outcome) -> bytes | None:
        """Return the result record of a body that ended, or None when it runs again."""
        return self._returned(outcome.value) if outcome.error is None else self._raised(outcome.error)

    def _returned(self, value: Any) -> bytes:
        try:
            payload = self.task.signature.encode_result(value)
        except Exception as error:  # noqa: BLE001 - also the user's enc_hook
            return self._dead("failed", type_name(error), text_of(error), traceback_text(error))
        return self._record(State.SUCCEEDED, payload)

    def _raised(self, error: BaseException) -> bytes | None:
        verdict: Verdict = decide(error, self.context.attempt, self.task.retry, self._retry)
        if isinstance(verdict, Skipped):
            return self._record(State.SKIPPED, b"\xc0")
        if isinstance(verdict, Dead):
            return self._dead(*verdict[:4])
        if self.context.attempt >= MOST_RUNS:
            return self._dead("failed", verdict.type_name, f"not ended after {MOST_RUNS} runs: {verdict.message}", "")
        assert isinstance(verdict, Again)
        self.context.attempt += 1
        self.context.fence = f"inline/{self.message.id}/{self.context.attempt}"
        return None

    def _dead(self, _reason: str, type_name: str, message: str, traceback: str) -> bytes:
        return self._record(State.DEAD, encode_record(Failure(type_name, message, traceback)))

    def _record(self, state: State, payload: bytes) -> bytes:
        self.state = state
        return encode_result(self.context.fence, state, payload)


class _Outcome(NamedTuple):
    """What a body returned, or what it raised: caught at the body, since a loop lets no SystemExit through quietly."""

    value: Any
    error: BaseException | None = None


async def _inside_task(run: _InlineRun, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Outcome:
    task = asyncio.current_task()
    assert task is not None
    enter_task(task, lambda: run.context)
    try:
        return _Outcome(await run.timed(run.task.function(*args, **kwargs)))
    except asyncio.CancelledError as error:
        if task.cancelling():
            raise  # by whoever waits for this, not by the body
        return _Outcome(None, error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the body's outcome
        return _Outcome(None, error)
    finally:
        leave_task(task)


def _in_thread(run: _InlineRun, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Outcome:
    with _inside_thread(run.context):
        try:
            return _Outcome(run.task.function(*args, **kwargs))
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - the body's outcome
            return _Outcome(None, error)


@contextmanager
def _inside_thread(context: Context[Any]) -> Iterator[None]:
    outer = current()
    enter_thread(lambda: context)
    try:
        yield
    finally:
        leave_thread()
        if outer is not None:
            enter_thread(lambda: outer)
