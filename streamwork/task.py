"""Tasks: declared functions with their options.

A task knows its sender only through a `Switch`, never the app.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    cast,
    final,
    overload,
)

import msgspec

from streamwork.context import Context
from streamwork.errors import ArgumentError, ConfigError
from streamwork.handle import Call, Handle, Switch
from streamwork.model.flow import FLOW_OPTIONS, NO_FLOW, Resolved
from streamwork.model.lane import lane_name
from streamwork.model.policy import carried_policy, normalized
from streamwork.model.span import milliseconds, seconds
from streamwork.model.timing import NOW
from streamwork.options import (
    DEFAULTS,
    MESSAGE_OPTIONS,
    TIMES,
    MessageOptions,
    TaskOptions,
    check_limits,
    check_options,
    limit_s,
    misplaced,
    no_such_method,
    tags_of,
)
from streamwork.routes import Asked, Routes
from streamwork.store.keys import checked_name
from streamwork.wire.annotations import default_name
from streamwork.wire.message import NO_OPTIONS
from streamwork.wire.signature import TaskSignature

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
_LONGEST_NAME = 250


class Task(Generic[P, R_co]):
    """A declared function with its name and options; calling it just runs the function."""

    def __init__(
        self,
        sending: Switch,
        function: Callable[..., Any],
        options: TaskOptions,
        keep_s: float,
        routes: Routes | None = None,
    ) -> None:
        self._routes = Routes() if routes is None else routes
        self._said: frozenset[str] = frozenset()
        self.sending = sending
        self.function = function
        self.name = _checked_task_name(function, options.get("name"))
        self.signature = TaskSignature(function, self.name, Context)
        self.is_async = self.signature.is_async
        self.default_keep_ms = int(keep_s * 1000)
        self.executor = options.get("executor", "thread")
        if self.executor not in ("thread", "process"):
            raise ConfigError(f"task {self.name}: executor={self.executor!r}: use 'thread' or 'process'")
        if self.executor == "process" and self.is_async:
            raise ConfigError(f"task {self.name}: executor='process' is for sync bodies; async ones run on the loop")
        self._message_options = NO_OPTIONS
        self._wait_s: float | None = None
        self._timing = NOW
        self._flow = NO_FLOW
        self._given: dict[str, Any] = {"queue": options.get("queue", "default")}  # for people to see
        self._configure({**DEFAULTS, **options})
        self.__name__ = getattr(function, "__name__", self.name)
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def _configure(self, options: Mapping[str, Any]) -> None:
        """Take over the options given; raises ConfigError, which names the task."""
        try:
            if "queue" in options:
                self.queue = checked_name("queue", options["queue"])
            if "tags" in options:
                self.tags = tags_of(options["tags"])
            if "priority" in options:
                self.priority: int = options["priority"]
            self.lane = lane_name(self.priority, self.tags)
            if "retry" in options:
                self.retry = normalized(options["retry"])
            if "timeout" in options:
                self.timeout_s = limit_s(options["timeout"])
            if "soft_timeout" in options:
                self.soft_timeout_s = limit_s(options["soft_timeout"], "soft_timeout")
            check_limits(self.soft_timeout_s, self.timeout_s)
            if not options.keys().isdisjoint(TIMES):
                self._timing = self._timing.changed({name: options[name] for name in TIMES if name in options})
            if not options.keys().isdisjoint(FLOW_OPTIONS):
                self._flow = self._flow.changed(options)
            if "wait" in options:
                self._wait_s = seconds(options["wait"], "wait")
            if "keep" in options:
                keep = options["keep"]
                self.keep_ms = self.default_keep_ms if keep is None else milliseconds(keep, "keep")
        except ConfigError as error:
            raise ConfigError(f"task {self.name}: {error}") from None

    def __repr__(self) -> str:
        return f"Task({self.name!r}{''.join(f', {name}={value!r}' for name, value in self._given.items())})"

    if not TYPE_CHECKING:  # or type checkers would believe in every name

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(no_such_method(self.__dict__.get("name", "without a name"), name))

    def options(self, **options: Unpack[MessageOptions]) -> Task[P, R_co]:
        """Return this task with other options for what is sent through the returned one; what is not given stays.

        Raises:
            ConfigError: Unknown option (answered with the nearest name) or a value out of range.
        """
        check_options(options, MESSAGE_OPTIONS, f"task {self.name}")
        clone: Task[P, R_co] = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        clone._configure(cast(dict[str, Any], options))
        clone._given = {**self._given, **options}
        clone._said = self._said | options.keys()
        carried: dict[str, Any] = {}
        if "timeout" in options:
            carried["timeout_ms"] = 0 if clone.timeout_s is None else round(clone.timeout_s * 1000)
        if "soft_timeout" in options:
            carried["soft_ms"] = 0 if clone.soft_timeout_s is None else round(clone.soft_timeout_s * 1000)
        if "keep" in options:
            carried["keep_ms"] = clone.keep_ms
        if "retry" in options:
            carried["retry"] = carried_policy(self.name, options["retry"])
        if carried:
            clone._message_options = msgspec.structs.replace(self._message_options, **carried)
        return clone

    def asked(self, packed: tuple[bytes, bytes | None]) -> Asked:
        """Return what routes look at in a call with these encoded arguments."""
        return Asked(self.name, self.queue, self.tags, self.priority, self._said, self.signature, packed)

    def limits_of(self, lane: str, packed: tuple[bytes, bytes | None]) -> Resolved | None:
        """Return the limits that a call with these encoded arguments asks for on a lane; None = none."""
        if self._flow is NO_FLOW:
            return None
        args, kwargs = self.signature.decode(*packed)
        return self._flow.resolve(self.name, lane, packed, args, kwargs)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """Return these arguments as a `Call`, checked against the annotations.

        Raises:
            ArgumentError: An argument is missing, unknown, of the wrong type or cannot be stored.
            ConfigError: A function of ``rate=``, ``concurrency=``, ``key=``, ``group=``, ``unique=`` raised.
            RouteError: A predicate of `app.route` raises.
        """
        try:
            packed = self.signature.encode(args, kwargs)
        except ArgumentError as error:
            refused = [
                name for name in kwargs if name not in self.signature.shape.parameters and repr(name) in str(error)
            ]
            if hint := misplaced(refused):
                raise ArgumentError(f"{error}{hint}") from None
            raise
        queue, lane = (self.queue, self.lane) if not self._routes else self._routes.place(self.asked(packed))
        flow = None if self._flow is NO_FLOW else self._flow.resolve(self.name, lane, packed, args, kwargs)
        return Call(
            self.sending, self.name, queue, lane, packed, self._message_options, self.signature.decode_result,
            wait_s=self._wait_s, timing=self._timing, flow=flow,
        )  # fmt: skip

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Send a task message; when this returns, Redis has it (P1).

        Raises:
            ArgumentError, RouteError, BodyTooLarge: Nothing was sent.
            StoreUnavailable: Redis was not reached in time (``options(wait=...)``); nothing was sent.
            EnqueueUnknown: Sent, and no answer came in the resend time.
            QueueFull: The queue is at ``client.max_backlog``, also after the time that was given; nothing was sent.
            StoreFull: Redis is at maxmemory, also after the time that was given; nothing was sent.
            TooManyLanes: Refused whole.
            AlreadyQueued: One with its ``unique=`` key has not ended, and is not to be joined.
            UseAsync: Called on an event loop's thread.
        """
        return self.sending.send(self.call(*args, **kwargs))

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Send a task message from async code; raises what `enqueue` raises."""
        return await self.sending.asend(self.call(*args, **kwargs))

    delay = enqueue
    adelay = aenqueue

    def handle(self, task_id: str) -> Handle[R_co]:
        """Return a handle for a task message of this task that was sent before, such as by another process.

        It is looked for when the handle is first asked, on this task's queue:
        ``task.options(queue="other").handle(id)`` asks another one.

        Raises:
            ConfigError: The text is not a task id.
        """
        return self.sending.handle(task_id, self.queue, self.signature.decode_result)


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


def _checked_task_name(function: Callable[..., Any], name: object) -> str:
    if isinstance(function, Task):
        raise ConfigError(f"{function!r} is a task already")
    if not callable(function):
        raise ConfigError(f"{function!r} cannot be a task: give a function, and options by name: @app.task(queue=...)")
    if name is None:
        return default_name(function)
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise ConfigError(f"name={name!r}: the name of a task is a printable text of 1-{_LONGEST_NAME} characters")
    return name


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
