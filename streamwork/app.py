"""The app: a namespace, its tasks, and sending. Two apps live in one process; there is no global one."""

from __future__ import annotations

import asyncio
import difflib
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from streamwork.config import Config, load
from streamwork.connection import Connection
from streamwork.context import Context
from streamwork.errors import ConfigError, DuplicateTaskName, TaskNotFound
from streamwork.model.lane import DEFAULT_PRIORITY, lane_name
from streamwork.store.keys import checked_name
from streamwork.task import AsyncTask, Call, Handle, SyncTask, Task, TaskOptions, check_options
from streamwork.wire.codec import unpacker
from streamwork.wire.message import Options
from streamwork.wire.signature import pack_call

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Context[Any])
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]

_DECLARED = frozenset({"name", "queue", "tags", "priority", "retry", "timeout", "keep", "executor"})
_unpack_anything = unpacker(Any)


class TaskDecorator(Protocol):
    """What `@app.task(...)` returns: turns a function into a task; a leading `Context` parameter is injected."""

    @overload
    def __call__(self, function: Callable[Concatenate[C, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[C, P], R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


class Streamwork:
    """An app.

    Args:
        name: Namespace: the prefix of every key, so two apps of one name share their queues.
        url: Redis; None = STREAMWORK_URL, ``[tool.streamwork] url``, or else the embedded server of this project.
        settings: Further settings by dotted name, such as ``{"worker.slots": 20}``; see `streamwork config show`.

    Raises:
        ConfigError: The name or a setting is wrong; nothing was connected.
    """

    def __init__(self, name: str, url: str | None = None, settings: Mapping[str, Any] | None = None) -> None:
        self.name = checked_name("app name", name)
        self.overrides: dict[str, Any] = {**(settings or {}), **({"url": url} if url is not None else {})}
        self.config: Config = load(self.overrides).config
        self.tasks: dict[str, Task[..., Any]] = {}
        self.lifespan_of: Lifespan | None = None
        self.connection = Connection(self.name, self.config)

    def __repr__(self) -> str:
        return f"Streamwork({self.name!r}, {len(self.tasks)} tasks)"

    @property
    def queues(self) -> list[str]:
        """The queues that this app's tasks use, sorted."""
        return sorted({task.queue for task in self.tasks.values()})

    @overload
    def task(self, function: Callable[Concatenate[C, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[Concatenate[C, P], R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> TaskDecorator: ...

    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Declare a task: ``@app.task`` or ``@app.task(queue="mail", tags={"backend"}, timeout=30)``.

        Raises:
            ConfigError: Unknown option, or an annotation that cannot be stored.
            DuplicateTaskName: The name is taken.
        """
        check_options(options, _DECLARED, options.get("name", getattr(function, "__name__", "")))
        if function is None:
            return lambda body: self._declare(body, cast(TaskOptions, options))
        return self._declare(function, {})

    def _declare(self, function: Callable[..., Any], options: TaskOptions) -> Task[..., Any]:
        kind = AsyncTask if inspect.iscoroutinefunction(inspect.unwrap(function)) else SyncTask
        task: Task[..., Any] = kind(self.connection, function, options, self.config.keep.result_s)
        other = self.tasks.get(task.name)
        if other is not None:
            raise DuplicateTaskName(
                f"two tasks are named {task.name!r}: {_place(other.function)} and {_place(function)}; give one of them name="
            )
        self.tasks[task.name] = task
        return task

    def lifespan(self, context_manager: Lifespan) -> Lifespan:
        """Declare the resources of a worker process: an async context manager; what it yields is `ctx.resources`."""
        if self.lifespan_of is not None:
            raise ConfigError(f"app {self.name!r} has a lifespan already: {self.lifespan_of!r}")
        self.lifespan_of = context_manager
        return context_manager

    def find(self, name: str) -> Task[..., Any]:
        """Return a declared task; raises TaskNotFound, naming the nearest."""
        task = self.tasks.get(name)
        if task is None:
            close = difflib.get_close_matches(name, self.tasks, 1)
            hint = f": did you mean {close[0]!r}?" if close else f"; it declares {', '.join(sorted(self.tasks)) or 'none'}"
            raise TaskNotFound(f"app {self.name!r} has no task {name!r}{hint}")
        return task

    def call(self, name: str, *args: Any, **kwargs: Any) -> Call[Any]:
        """Return a call by name, whether or not the task is declared here: what is not is sent unchecked to `default`."""
        if name in self.tasks:
            return self.tasks[name].call(*args, **kwargs)
        return self.call_elsewhere(name, args, kwargs)

    def call_elsewhere(  # noqa: PLR0913 - the facts that a declaration would give
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *,
        queue: str = "default", tags: Iterable[str] = (), priority: int = DEFAULT_PRIORITY,
    ) -> Call[Any]:  # fmt: skip
        """Return a call to a task that only the workers declare; its arguments are checked there."""
        if not name:
            raise TaskNotFound("the name of a task cannot be empty")
        checked_name("queue", queue)
        lane = lane_name(priority, frozenset(checked_name("tag", tag) for tag in tags))
        return Call(self.connection, name, queue, lane, pack_call(args, kwargs), Options(), _unpack_anything)

    def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Send any number of calls, one round trip per chunk; handles in the order of the calls.

        What was sent before an error stays sent.

        Raises:
            BodyTooLarge, StoreError, EnqueueUnknown, UseAsync: As `Task.enqueue`.
        """
        return self.connection.send_many(calls)

    async def aenqueue_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Send any number of calls from async code; handles in the order of the calls."""
        return await self.connection.asend_many(calls)

    def close(self) -> None:
        """Close this process's connections; the app can be used again afterwards."""
        self.connection.close()

    async def aclose(self) -> None:
        """Close the connections, this loop's included."""
        await self.connection.aclose()
        await asyncio.to_thread(self.connection.close)

    def __enter__(self) -> Streamwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Streamwork:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)


