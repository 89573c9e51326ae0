"""Tasks: declared functions with their options.

A task knows its sender only through the `Sending` port, never the app.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, cast, final, overload

from streamwork.context import Context
from streamwork.errors import ConfigError
from streamwork.handle import Call, Handle, Seconds, Sending, seconds
from streamwork.model.lane import DEFAULT_PRIORITY, lane_name
from streamwork.model.policy import DEFAULT_RETRY, Retry, RetryRule, normalized
from streamwork.store.keys import checked_name
from streamwork.wire.message import NO_OPTIONS, Options
from streamwork.wire.signature import TaskSignature

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class TaskOptions(TypedDict, total=False):
    """Options of `@app.task` and `task.options`; times are seconds as float or timedelta.

    Attributes:
        name: Task name (declaration only).
        queue: Queue name.
        tags: What a worker must offer.
        priority: 0 (last) – 9 (first).
        retry: A Retry, a list of them (the first that fits counts) or None.
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


class Task(Generic[P, R_co]):
    """A declared function with its name and options; calling it just runs the function."""

    def __init__(self, sending: Sending, function: Callable[..., Any], options: TaskOptions, keep_s: float) -> None:
        self.sending = sending
        self.function = function
        self.name = options.get("name") or default_name(function)
        self.signature = TaskSignature(function, self.name, Context)
        self.is_async = self.signature.is_async
        self.default_keep_ms = int(keep_s * 1000)
        self.executor = options.get("executor", "thread")
        if self.executor not in ("thread", "process"):
            raise ConfigError(f"task {self.name}: executor={self.executor!r}: use 'thread' or 'process'")
        if self.executor == "process" and self.is_async:
            raise ConfigError(f"task {self.name}: executor='process' is for sync bodies; async ones run on the loop")
        self._message_options = NO_OPTIONS
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
            raise ConfigError(f"task {self.name}: options(retry=) takes one Retry or None; a list goes to @app.task")
        clone: Task[P, R_co] = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        base: TaskOptions = {
            "queue": self.queue,
            "tags": self.tags,
            "priority": self.priority,
            "retry": self.retry,
            "timeout": self.timeout_s,
            "keep": self.keep_ms / 1000,
        }
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
        read = self.signature.decode_result
        return Call(self.sending, self.name, self.queue, self.lane, packed, self._message_options, read)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Send a task message; when this returns, Redis has it (P1).

        Raises:
            ArgumentError, BodyTooLarge: Nothing was sent.
            StoreUnavailable: Redis was not reached in time; nothing was sent.
            EnqueueUnknown: Sent, and no answer came in the resend time.
            StoreFull, TooManyLanes: Refused whole.
            UseAsync: Called on an event loop's thread.
        """
        return self.sending.send(self.call(*args, **kwargs))

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Send a task message from async code; raises what `enqueue` raises."""
        return await self.sending.asend(self.call(*args, **kwargs))

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


WithContext = Callable[Concatenate[Context[Any], P], R]


@final
class _Anything:
    """Fits only a parameter that takes everything."""


class WithoutContext(Protocol[P, R_co]):
    """A function whose first parameter takes anything, so it is an argument, although a `Context` would fit it too."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, first: _Anything, /, *args: Any, **kwargs: Any) -> Any: ...


class TaskDecorator(Protocol):
    """What `@app.task(...)` returns: turns a function into a task; a leading `Context` parameter is injected.

    Type checkers see a `Context` only in first place; elsewhere it is injected too, but they ask the caller for it.
    """

    # See `Streamwork.task` for the overlap.
    @overload
    def __call__(self, function: WithoutContext[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    @overload
    def __call__(self, function: WithContext[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: WithoutContext[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, function: WithContext[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
