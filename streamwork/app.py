"""The app: a namespace, its tasks, and sending. Two apps live in one process; there is no global one."""

from __future__ import annotations

import asyncio
import difflib
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, ParamSpec, TypeVar, Unpack, cast, overload

from streamwork.config import Config, load
from streamwork.connection import Connection
from streamwork.errors import ConfigError, DuplicateTaskName, TaskNotFound
from streamwork.events import Telling
from streamwork.handle import Call, Handle, Switch
from streamwork.inline import InlineSending
from streamwork.model.lane import DEFAULT_PRIORITY
from streamwork.model.resources import Lifespan, lifespan_of
from streamwork.model.schedule import Schedule
from streamwork.model.span import Seconds, seconds
from streamwork.options import TASK_OPTIONS, TaskOptions, check_options, tags_of
from streamwork.pausing import Pausing
from streamwork.replay.face import Replaying
from streamwork.routes import Asked
from streamwork.routing import Routing
from streamwork.schedules import Planning
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import checked_name
from streamwork.tapping import Tapping
from streamwork.task import AsyncTask, SyncTask, Task, TaskDecorator, WithContext, WithoutContext
from streamwork.wire.codec import unpacker
from streamwork.wire.message import NO_OPTIONS
from streamwork.wire.signature import pack_call

P = ParamSpec("P")
R = TypeVar("R")

_unpack_anything = unpacker(Any)


class Streamwork(Routing, Pausing, Planning, Replaying, Tapping, Telling):
    """An app.

    Args:
        name: Namespace: the prefix of every key, so two apps of one name share their queues.
        url: Redis; None = STREAMWORK_URL, ``[tool.streamwork] url``, or else the embedded server of this project.
        settings: Further settings by dotted name, such as ``{"worker.slots": 20}``; see `streamwork config show`.

    Raises:
        ConfigError: The name, the URL or a setting is wrong; nothing was connected.
    """

    def __init__(self, name: str, url: str | None = None, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.name = checked_name("app name", name)
        if not isinstance(settings, Mapping | None):
            raise ConfigError(f"settings={settings!r}: give a dict of dotted names, such as {{'worker.slots': 20}}")
        self.overrides: dict[str, Any] = {**(settings or {}), **({"url": url} if url is not None else {})}
        self.flags: dict[str, Any] = {}
        self.config: Config = load(self.overrides).config
        if url is not None:
            Endpoint(url)  # raises here for what is no URL, and connects to nothing
        self.tasks: dict[str, Task[..., Any]] = {}
        self._planned: dict[tuple[str, str], Schedule] = {}
        self.dead_hooks = []
        self.lifespan_of: Lifespan[Any] | None = None
        self.connection = Connection(self.name, self.config)
        self.sending = Switch(self.connection)

    def __repr__(self) -> str:
        return f"Streamwork({self.name!r}, {len(self.tasks)} tasks)"

    def configure(self, flags: Mapping[str, Any]) -> None:
        """Set settings from outside, such as command-line flags: they beat code, variables and files.

        Connections are closed and made anew at their next use; what the running loop holds is not touched, so call this
        before anything is awaited.

        Args:
            flags: Dotted names to values; None values are ignored.

        Raises:
            ConfigError: A setting is wrong; nothing was changed.
        """
        merged = {**self.flags, **{name: value for name, value in flags.items() if value is not None}}
        self.config = load(self.overrides, flags=merged).config
        self.flags = merged
        self.connection.configure(self.config)

    @property
    def queues(self) -> list[str]:
        """The queues that this app's tasks and routes use, sorted."""
        return sorted({*(task.queue for task in self.tasks.values()), *(r.queue for r in self.routes if r.queue)})

    # Overloads 1-3 end in AsyncTask, 4-6 in SyncTask. The two overlap only for an async function that was first hidden
    # behind a type such as Callable[..., object]; else the first that fits says what happens at run time.
    @overload
    def task(self, function: WithoutContext[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    @overload
    def task(self, function: WithContext[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def task(self, function: WithoutContext[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, function: WithContext[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> TaskDecorator: ...

    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Declare a task: ``@app.task`` or ``@app.task(queue="mail", tags={"backend"}, timeout=30)``.

        Raises:
            ConfigError: Unknown option, a value out of range, no function, or an annotation that cannot be stored.
            DuplicateTaskName: The name is taken.
        """
        check_options(options, TASK_OPTIONS, f"task {options['name']}" if options.get("name") else "@app.task")
        if function is None:
            return lambda body: self._declare(body, cast(TaskOptions, options))
        return self._declare(function, cast(TaskOptions, options))

    def _declare(self, function: Callable[..., Any], options: TaskOptions) -> Task[..., Any]:
        kind = AsyncTask if inspect.iscoroutinefunction(inspect.unwrap(function)) else SyncTask
        task: Task[..., Any] = kind(self.sending, function, options, self.config.keep.result_s, self.rules)
        other = self.tasks.get(task.name)
        if other is not None:
            one, two = _place(other.function), _place(function)
            what = f"two tasks are named {task.name!r}: {one} and {two}"
            if one == two:
                what = f"one function is declared twice as the task {task.name!r}: {one}"
            raise DuplicateTaskName(f"{what}; give one of them name=")
        self.tasks[task.name] = task
        return task

    def lifespan(
        self, function: Callable[[], AbstractAsyncContextManager[R]] | Callable[[], AsyncIterator[R]]
    ) -> Lifespan[R]:
        """Declare the resources of a worker process; what is yielded is `ctx.resources`.

        Args:
            function: ``async def`` with one ``yield``, with or without ``@asynccontextmanager``, or the class of an
                async context manager; it takes no arguments.

        Returns:
            What makes the context manager, as a test would use it.

        Raises:
            ConfigError: It is none, or there is one already.
        """
        if self.lifespan_of is not None:
            raise ConfigError(f"app {self.name!r} has a lifespan already: {self.lifespan_of!r}")
        self.lifespan_of = made = lifespan_of(function)
        return made

    def find(self, name: str) -> Task[..., Any]:
        """Return a declared task; raises TaskNotFound, naming the nearest."""
        task = self.tasks.get(name)
        if task is None:
            # People leave the module out, or get it wrong while the function is right.
            known = {full.rpartition(".")[2]: full for full in self.tasks} | {full: full for full in self.tasks}
            tries = (name, name.rpartition(".")[2])
            close = [found for text in tries for found in difflib.get_close_matches(text, known, 1)]
            declared = ", ".join(sorted(self.tasks)) or "none"
            hint = f": did you mean {known[close[0]]!r}?" if close else f"; it declares {declared}"
            raise TaskNotFound(f"app {self.name!r} has no task {name!r}{hint}")
        return task

    def call(self, name: str, *args: Any, **kwargs: Any) -> Call[Any]:
        """Return a call by name, whether or not the task is declared here; what is not goes to `default` unchecked."""
        if name in self.tasks:
            return self.tasks[name].call(*args, **kwargs)
        return self.call_elsewhere(name, args, kwargs)

    def call_elsewhere(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *,
        queue: str | None = None, tags: Iterable[str] | None = None, priority: int | None = None,
    ) -> Call[Any]:  # fmt: skip
        """Return a call to a task that only the workers declare; its arguments are checked there.

        Routes that look at arguments do not fit it, since they have no names here.
        """
        if not name or not isinstance(name, str):
            raise TaskNotFound(f"{name!r} cannot be the name of a task")
        said: dict[str, Any] = {"queue": queue, "tags": None if tags is None else tags_of(tags), "priority": priority}
        said = {option: value for option, value in said.items() if value is not None}
        packed = pack_call(args, kwargs)
        asked = Asked(name, "default", frozenset(), DEFAULT_PRIORITY, frozenset(said), None, packed)._replace(**said)
        checked_name("queue", asked.queue)
        place, lane = self.rules.place(asked)
        return Call(self.sending, name, place, lane, packed, NO_OPTIONS, _unpack_anything)

    def handle(self, task_id: str, queue: str = "default") -> Handle[Any]:
        """Return a handle for a task message that was sent before, such as by another process; see `Task.handle`.

        Its result comes in its plain form, as dicts, lists, texts and numbers.

        Raises:
            ConfigError: The text is not a task id, or the name of the queue is wrong.
        """
        return self.sending.handle(task_id, checked_name("queue", queue), _unpack_anything)

    def enqueue_many(self, calls: Iterable[Call[R]], *, wait: Seconds | None = None) -> list[Handle[R]]:
        """Send any number of calls, one round trip per chunk; handles in the order of the calls.

        What was sent before an error stays sent.

        Args:
            calls: What `task.call` returns.
            wait: How long each chunk tries while Redis is away or full, or the queue is; None = as the settings say,
                and not while something is full. The calls' own does not count.

        Raises:
            ConfigError: Something among them is not a call, or `wait` is no span of time.
            QueueFull: There is no room for all; as many as there was room for were sent, and its `sent` says how many.
            BodyTooLarge, StoreError, EnqueueUnknown, UseAsync: As `Task.enqueue`.
        """
        return self.sending.send_many(_calls(calls), seconds(wait, "wait"))

    async def aenqueue_many(self, calls: Iterable[Call[R]], *, wait: Seconds | None = None) -> list[Handle[R]]:
        """Send any number of calls from async code; handles in the order of the calls."""
        return await self.sending.asend_many(_calls(calls), seconds(wait, "wait"))

    @contextmanager
    def inline(self, resources: Any = None) -> Iterator[InlineSending]:
        """Run what is enqueued in place and at once, in this process and without Redis; for tests.

        Counts for every thread of the process until the block ends. Arguments, results and errors go through the same
        encoding as over Redis. A retry follows at once; a timeout is kept for async bodies only; ``executor="process"``
        bodies run in this process.

        Args:
            resources: What `ctx.resources` is; the lifespan is not entered.
        """
        inline = InlineSending(self.tasks, self.config.client.max_body_bytes, resources)
        before, self.sending.now = self.sending.now, inline
        try:
            yield inline
        finally:
            self.sending.now = before
            inline.close()

    @contextmanager
    def redirected(self, name: str, url: str) -> Iterator[Streamwork]:
        """Be an app of another name on another Redis until the block ends, tasks and all; for tests.

        Raises:
            ConfigError: The name or the URL is wrong; nothing has changed.
        """
        before = self.name, self.config, self.connection, self.sending.now
        config = load(self.overrides, flags={**self.flags, "url": url}).config
        connection = Connection(checked_name("app name", name), config)
        self.name, self.config, self.connection, self.sending.now = name, config, connection, connection
        try:
            yield self
        finally:
            self.name, self.config, self.connection, self.sending.now = before
            connection.close()

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


def _calls(calls: Iterable[Call[R]]) -> Iterator[Call[R]]:
    if not isinstance(calls, Iterable):
        raise ConfigError(f"{calls!r} is not several calls: give an iterable of task.call(...)")
    return map(_call, calls)


def _call(call: Call[R]) -> Call[R]:
    if call.__class__ is not Call and not isinstance(call, Call):
        raise ConfigError(f"{call!r} is not a call: give task.call(...)")
    return call


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)
