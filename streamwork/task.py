"""Tasks, calls and handles: what a user holds before and after sending.

A task knows its sender only through the `Sending` port, never the app.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine, Generator, Iterable
from datetime import timedelta
from typing import Any, Generic, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, cast

from streamwork.context import Context
from streamwork.errors import ConfigError, DecodeError, ResultGone, ResultTimeout, TaskFailed
from streamwork.model.lane import DEFAULT_PRIORITY, lane_name
from streamwork.model.policy import DEFAULT_RETRY, Retry, RetryRule, normalized
from streamwork.model.state import State
from streamwork.store.keys import checked_name
from streamwork.wire.message import Options, decode_failure, decode_result
from streamwork.wire.signature import TaskSignature

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Seconds = float | timedelta


class TaskOptions(TypedDict, total=False):
    """Options of `@app.task` and `task.options`; times are seconds as float or timedelta.

    Attributes:
        name: Task name (declaration only).
        queue: Queue name.
        tags: What a worker must offer.
        priority: 0 (last) – 9 (first).
        retry: A Retry, a list of them (the first that fits the exception counts) or None.
        timeout: Time limit of one run; None = none.
        keep: Retention of the result; 0 = keep none; None = the app's.
        executor: ``thread`` or ``process`` for sync bodies (declaration only).
    """

    name: str
    queue: str
    tags: Iterable[str]
    priority: int
    retry: RetryRule
    timeout: Seconds | None
    keep: Seconds | None
    executor: str


_PER_MESSAGE = frozenset({"queue", "tags", "priority", "retry", "timeout", "keep"})


class Sending(Protocol):
    """What tasks and handles need from below: sending and waiting."""

    def send(self, call: Call[R]) -> Handle[R]:
        """Send one call."""
        ...

    async def asend(self, call: Call[R]) -> Handle[R]:
        """Send one call from a loop."""
        ...

    def wait(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Return the handle's result record, or None when the time is up."""
        ...

    async def await_(self, handle: Handle[Any], timeout_s: float | None) -> bytes | None:
        """Return the handle's result record, or None when the time is up."""
        ...

    def state(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        ...

    async def astate(self, handle: Handle[Any]) -> State:
        """Return where the task message is."""
        ...

    def cancel(self, handle: Handle[Any]) -> str:
        """Ask that the task message does not run."""
        ...

    async def acancel(self, handle: Handle[Any]) -> str:
        """Ask that the task message does not run."""
        ...


class Call(Generic[R_co]):
    """A task with its arguments and options, checked and encoded, not yet sent.

    Attributes:
        task_name: The task.
        queue: Where it goes.
        lane: Lane name.
        args: Encoded positional arguments.
        kwargs: Encoded keyword arguments or None.
        options: What the message carries beside them.
        read_result: Decodes the result.
    """

    __slots__ = ("_sending", "args", "kwargs", "lane", "options", "queue", "read_result", "task_name")

    def __init__(  # noqa: PLR0913 - one fact each, made in two places
        self, sending: Sending, task_name: str, queue: str, lane: str, packed: tuple[bytes, bytes | None],
        options: Options, read_result: Callable[[bytes], R_co],
    ) -> None:  # fmt: skip
        self._sending = sending
        self.task_name = task_name
        self.queue = queue
        self.lane = lane
        self.args, self.kwargs = packed
        self.options = options
        self.read_result = read_result

    def enqueue(self) -> Handle[R_co]:
        """Send this call; see `Task.enqueue`."""
        return self._sending.send(self)

    async def aenqueue(self) -> Handle[R_co]:
        """Send this call from async code."""
        return await self._sending.asend(self)

    delay = enqueue
    adelay = aenqueue


class Handle(Generic[R_co]):
    """A task message that was sent: ask for its state, wait for its result.

    Attributes:
        id: Task id.
        queue: Its queue.
        lane: Its lane.
        entry: Its first entry on the lane; a retry gets another one.
    """

    __slots__ = ("_read_result", "_sending", "entry", "id", "lane", "queue")

    def __init__(  # noqa: PLR0913 - one fact each
        self, sending: Sending, task_id: str, queue: str, lane: str, entry: str, read_result: Callable[[bytes], R_co]
    ) -> None:
        self._sending = sending
        self.id = task_id
        self.queue = queue
        self.lane = lane
        self.entry = entry
        self._read_result = read_result

    def __repr__(self) -> str:
        return f"Handle({self.id}, queue={self.queue!r})"

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.aresult().__await__()

    def result(self, timeout: Seconds | None = None) -> R_co:
        """Wait for the end and return the result.

        Args:
            timeout: Seconds; None waits as long as it takes.

        Raises:
            TaskFailed: The task raised, or was rejected, quarantined or cancelled.
            ResultTimeout: Not ended in time; the task message goes on.
            ResultGone: Ended, but no result is kept.
            UseAsync: Called on an event loop's thread.
        """
        return self._value(self._sending.wait(self, seconds(timeout)), timeout)

    async def aresult(self, timeout: Seconds | None = None) -> R_co:
        """Wait for the end and return the result; raises what `result` raises."""
        return self._value(await self._sending.await_(self, seconds(timeout)), timeout)

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait for the end, however it comes; False when the time is up first."""
        return self._sending.wait(self, seconds(timeout)) is not None

    async def await_(self, timeout: Seconds | None = None) -> bool:
        """Wait for the end, however it comes; False when the time is up first."""
        return await self._sending.await_(self, seconds(timeout)) is not None

    def state(self) -> State:
        """Return where the task message is now."""
        return self._sending.state(self)

    async def astate(self) -> State:
        """Return where the task message is now."""
        return await self._sending.astate(self)

    def cancel(self) -> str:
        """Ask that the task message does not run (again).

        Returns:
            ``cancelled``: it will not. ``requested``: it is on a lane; a worker drops it, unless it ends first.
            ``ended``: too late.
        """
        return self._sending.cancel(self)

    async def acancel(self) -> str:
        """Ask that the task message does not run (again); see `cancel`."""
        return await self._sending.acancel(self)

    def _value(self, record: bytes | None, timeout: Seconds | None) -> R_co:
        if record is None:
            raise ResultTimeout(f"task message {self.id} did not end within {seconds(timeout)} s; it goes on")
        result = decode_result(record)
        if result.state == State.SUCCEEDED:
            return self._read_result(result.payload)
        if result.state == State.SKIPPED:
            return cast(R_co, None)
        if result.state == State.UNKNOWN:
            raise ResultGone(f"task message {self.id} ended, and its result is not kept (option keep)")
        try:
            failure = decode_failure(result.payload)
        except DecodeError as error:
            raise ResultGone(f"task message {self.id} ended as {result.state}, its failure cannot be read") from error
        raise TaskFailed(self.id, result.state, failure.type_name, failure.message, failure.traceback)


class Task(Generic[P, R_co]):
    """A declared function with its name and options; calling it just runs the function."""

    def __init__(self, sending: Sending, function: Callable[..., Any], options: TaskOptions, keep_s: float) -> None:
        self._sending = sending
        self.function = function
        self.name = options.get("name") or default_name(function)
        self.signature = TaskSignature(function, self.name, Context)
        self.is_async = self.signature.is_async
        self.default_keep_ms = int(keep_s * 1000)
        self.executor = options.get("executor", "thread")
        if self.executor not in ("thread", "process"):
            raise ConfigError(f"task {self.name}: executor={self.executor!r}: use 'thread' or 'process'")
        if self.executor == "process" and self.is_async:
            raise ConfigError(f"task {self.name}: an async body runs on the worker's loop; executor='process' is for sync bodies")
        self._message_options = Options()
        self._configure(options)
        self.__name__ = getattr(function, "__name__", self.name)
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def _configure(self, options: TaskOptions) -> None:
        self.queue = checked_name("queue", options.get("queue", "default"))
        tags = options.get("tags", ())
        if isinstance(tags, str):
            raise ConfigError(f"task {self.name}: tags={tags!r}: give a set of texts")
        self.tags = frozenset(checked_name("tag", tag) for tag in tags)
        self.priority = options.get("priority", DEFAULT_PRIORITY)
        self.lane = lane_name(self.priority, self.tags)
        self.retry = normalized(options.get("retry", DEFAULT_RETRY))
        self.timeout_s = positive("timeout", options.get("timeout"))
        keep_s = seconds(options.get("keep"))
        self.keep_ms = self.default_keep_ms if keep_s is None else int(keep_s * 1000)

    def __repr__(self) -> str:
        return f"Task({self.name!r}, queue={self.queue!r})"

    def options(self, **options: Unpack[TaskOptions]) -> Task[P, R_co]:
        """Return this task with other options for what is sent through the returned one.

        Raises:
            ConfigError: Unknown option (answered with the nearest name) or a value out of range.
        """
        check_options(options, _PER_MESSAGE, self.name)
        if "retry" in options and not (options["retry"] is None or isinstance(options["retry"], Retry)):
            raise ConfigError(f"task {self.name}: options(retry=) takes one Retry or None; lists belong to the declaration")
        clone: Task[P, R_co] = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        base: TaskOptions = {"queue": self.queue, "tags": self.tags, "priority": self.priority, "retry": self.retry, "timeout": self.timeout_s, "keep": self.keep_ms / 1000}
        clone._configure(cast(TaskOptions, {**base, **options}))
        clone._message_options = Options(
            timeout_ms=int(clone.timeout_s * 1000) if "timeout" in options and clone.timeout_s is not None else None,
            keep_ms=clone.keep_ms if "keep" in options else None,
            retry=_carried(clone.retry) if "retry" in options else None,
        )
        return clone

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """Return these arguments as a `Call`, checked against the annotations.

        Raises:
            ArgumentError: An argument is missing, unknown, of the wrong type or cannot be stored.
        """
        packed = self.signature.encode(args, kwargs)
        return Call(self._sending, self.name, self.queue, self.lane, packed, self._message_options, self.signature.decode_result)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Send a task message; when this returns, Redis has it (P1).

        Raises:
            ArgumentError, BodyTooLarge: Nothing was sent.
            StoreUnavailable: Redis was not reached in time; nothing was sent.
            EnqueueUnknown: Sent, and no answer came in the resend time.
            StoreFull, TooManyLanes: Refused whole.
            UseAsync: Called on an event loop's thread.
        """
        return self._sending.send(self.call(*args, **kwargs))

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Send a task message from async code; raises what `enqueue` raises."""
        return await self._sending.asend(self.call(*args, **kwargs))

    delay = enqueue
    adelay = aenqueue


def _carried(policies: tuple[Retry, ...]) -> tuple[int, float, float, float, bool]:
    # Exception types stay with the declaration: a message never names a class.
    policy = policies[0] if policies else Retry(max_attempts=1)
    return policy.max_attempts, policy.base, policy.factor, policy.max_delay, policy.jitter


class SyncTask(Task[P, R_co]):
    """A task with a plain body."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function here and now, without any queue."""
        return cast(R_co, self.function(*with_context(self, args, kwargs), **kwargs))


class AsyncTask(Task[P, R_co]):
    """A task with an `async def` body."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Run the function here, without any queue; await the answer."""
        return cast(Coroutine[Any, Any, R_co], self.function(*with_context(self, args, kwargs), **kwargs))


def with_context(task: Task[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of a direct call, with an empty context where the function wants one and none was given."""
    wanted = task.signature.context_parameter
    if wanted is None or wanted in kwargs or any(isinstance(arg, Context) for arg in args):
        return args
    args, injected = task.signature.inject(args, {}, Context(task.name))
    kwargs.update(injected)
    return args


def seconds(value: Seconds | None) -> float | None:
    """Return a span given as float or timedelta in seconds; None stays None. Raises ConfigError below zero."""
    if value is None:
        return None
    span = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if span < 0:
        raise ConfigError(f"{value!r}: a span of time cannot be negative")
    return span


def positive(what: str, value: Seconds | None) -> float | None:
    """Return a span as `seconds` does; zero is refused too, since nothing could end within it."""
    span = seconds(value)
    if span == 0:
        raise ConfigError(f"{what}=0: use None for no limit")
    return span


def check_options(options: object, allowed: frozenset[str], task: str) -> None:
    """Raise ConfigError for an unknown option, naming the nearest one."""
    for name in cast(dict[str, Any], options):
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, 1)
            hint = f": did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(allowed))}"
            raise ConfigError(f"task {task}: unknown option {name!r}{hint}")


def default_name(function: Callable[..., Any]) -> str:
    """Return ``module.function``; a script run by itself counts under its file name, as a worker would import it."""
    module = function.__module__
    if module == "__main__":
        path = getattr(function, "__globals__", {}).get("__file__")
        module = path.rpartition("/")[2].removesuffix(".py") if path else "main"
    return f"{module}.{function.__qualname__}".replace("<locals>.", "")
