"""What a running task may ask about its own delivery, and how result() knows that it is inside one."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, cast

from streamwork.errors import ConfigError, UseAsync
from streamwork.model.span import Seconds, seconds

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # The default lets a plain `Context` stand in strict code; at run time Python 3.11 has none and needs none.
    R = TypeVar("R", default=None)
else:
    from typing import TypeVar

    R = TypeVar("R")

T = TypeVar("T")

_LEAST_S = 0.001

_by_thread = threading.local()
_by_task: dict[asyncio.Task[Any], Callable[[], Context[Any]]] = {}
# Unlike those above inherited by what a body starts: the tasks of ``asyncio.gather``, threads of ``asyncio.to_thread``.
_inherited: ContextVar[tuple[Callable[[Any], Context[Any]], Any] | None] = ContextVar("streamwork_run", default=None)


class Context(Generic[R]):
    """The delivery a task runs for; injected where a parameter is annotated with `Context`.

    Attributes:
        task_id: Id of the task message; empty in a direct call.
        task_name: The task.
        queue: Where it came from.
        attempt: 1 for the first run; crashes are not counted.
        crashes: Processes that died while running it.
        lane: Lane name.
        fence: Text that is unique to this delivery and changes with every other one: compare it in the store that the
            task writes to, and a zombie cannot overwrite.
        resources: What the app's lifespan yielded, as in ``Context[Pool]``; None without one, and in a direct call.
        schedule: Name of the schedule that sent it; empty = none did.
        scheduled_at: The instant that the schedule meant, in UTC; None = none sent it.
        replay: Empty in a worker; ``here`` or ``compare`` where a past delivery runs again (`Streamwork.replay_here`,
            `compare`). What it sends is captured then; what else must not happen twice, it leaves out by this.
        lease_lost: Becomes True when another consumer was given this delivery: stop, nothing will be committed.
    """

    __slots__ = (
        "attempt",
        "crashes",
        "extend_by",
        "fence",
        "free_slots",
        "lane",
        "lease_lost",
        "queue",
        "replay",
        "resources",
        "schedule",
        "scheduled_at",
        "task_id",
        "task_name",
    )

    def __init__(self, task_name: str = "", resources: R | None = None) -> None:
        self.task_id = ""
        self.task_name = task_name
        self.queue = ""
        self.lane = ""
        self.attempt = 1
        self.crashes = 0
        self.fence = ""
        self.schedule = ""
        self.scheduled_at: datetime | None = None
        self.resources = cast(R, resources)
        self.replay = ""
        self.lease_lost = False
        self.free_slots: Callable[[str], int] | None = None
        self.extend_by: Callable[[float], None] | None = None

    def extend(self, timeout: Seconds) -> None:
        """Move the hard limit of this run: it may go on for `timeout` from now, or until its limit if that is later.

        From any thread or process that the body runs in. The soft limit stays where it is, and each retry begins with
        the declared limits. Where there is no hard limit, as in a direct call, nothing changes.

        Args:
            timeout: Seconds or a timedelta, at least a millisecond.

        Raises:
            ConfigError: It is none of these; the limit is where it was.
        """
        span_s = seconds(timeout)
        if not span_s or span_s < _LEAST_S:
            raise ConfigError(f"extend({timeout!r}): give a millisecond (0.001) or more")
        if self.extend_by is not None:
            self.extend_by(span_s)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry the task's id, name and attempt."""
        facts = {"task_id": self.task_id, "task": self.task_name, "attempt": self.attempt}
        return logging.LoggerAdapter(logging.getLogger(f"streamwork.task.{self.task_name}"), facts)


def enter_thread(context: Callable[[], Context[Any]]) -> None:
    """Note that this thread runs deliveries; the context of the one it runs is made when someone asks."""
    _by_thread.context = context


def leave_thread() -> None:
    """Note that this thread runs none."""
    _by_thread.context = None


def enter_task(task: asyncio.Task[Any], context: Callable[[], Context[Any]]) -> None:
    """Note that this asyncio task runs deliveries; the context of the one it runs is made when someone asks."""
    _by_task[task] = context


def enter_run(make: Callable[[T], Context[Any]], run: T) -> Token[Any]:
    """Note which run whatever is started from here on belongs to; returns what `leave_run` takes.

    Args:
        make: Gives the run's context, once someone asks.
        run: What it is given.
    """
    return _inherited.set((make, run))


def leave_run(token: Token[Any]) -> None:
    """Note that nothing that is started from here on belongs to the run."""
    _inherited.reset(token)


def leave_task(task: asyncio.Task[Any]) -> None:
    """Note that this asyncio task runs none."""
    _by_task.pop(task, None)


def current() -> Context[Any] | None:
    """Return the context of the delivery that the caller runs for, or None outside of tasks."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        context = getattr(_by_thread, "context", None)
    else:
        context = None if task is None else _by_task.get(task)
    return None if context is None else context()


def begun_by() -> Context[Any] | None:
    """Return the context of the delivery whose body the caller is, or was started by; None outside of any."""
    found = _inherited.get()
    return current() if found is None else found[0](found[1])


def refuse_on_loop(blocking: str, twin: str) -> None:
    """Raise UseAsync on a running loop's thread: the call would stop every coroutine there (rule 37)."""
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public form raises instead, 1 us slower
        raise UseAsync(f"{blocking}() would block this event loop: use await {twin}()")
