"""Schedules of an app: declared above a task, or added, paused and removed while everything runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from streamwork.broker.plans import Code, ScheduleView, add, change, run_now, views
from streamwork.broker.stats import queue_names
from streamwork.broker.steps import Steps
from streamwork.errors import ConfigError, ScheduleNotFound
from streamwork.guards import refuse_on_loop
from streamwork.handle import Call
from streamwork.model.calendar import Calendar, Gap, cron, every
from streamwork.model.calendar import Overlap as Twice
from streamwork.model.schedule import VERSION, Missed, Overlap, Schedule, checked_policies, encode_schedule
from streamwork.model.span import Seconds, milliseconds
from streamwork.store.keys import QueueKeys, checked_name
from streamwork.task import Task
from streamwork.wire.message import NO_OPTIONS

if TYPE_CHECKING:
    from streamwork.connection import Connection

T = TypeVar("T", bound=Task[..., Any])

# Within the class below, `list` is its method.
Views = list[ScheduleView]

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def calendar_of(
    expression: str | None, interval: Seconds | None, tz: str = "UTC", gap: Gap = "auto", twice: Twice = "auto"
) -> Calendar:
    """Return a checked calendar: an expression or an interval; raises ConfigError."""
    if (expression is None) == (interval is None):
        raise ConfigError("a schedule has cron= or every=: give one of them")
    if expression is not None:
        return cron(expression, tz, gap, twice)
    assert interval is not None
    return every(milliseconds(interval, "every"))


def schedule_of(
    name: str, call: Call[Any], calendar: Calendar, missed: Missed, overlap: Overlap, *, is_declared: bool = False
) -> Schedule:
    """Return what is stored of a schedule; raises ConfigError."""
    checked_name("schedule", name)
    checked_policies(missed, overlap)
    if not isinstance(call, Call):
        raise ConfigError(f"schedule {name}: {call!r} is not a call: give task.call(...)")
    if call.timing.when or call.timing.expires_at_ms is not None or (call.flow is not None and call.flow.delay_ms):
        raise ConfigError(f"schedule {name}: delay, run_at, debounce and an instant to expire at do not repeat")
    limits = call.flow.limits if call.flow is not None else b""
    if limits and any(limit[0] == "u" for limit in _unpack(limits)):
        raise ConfigError(f"schedule {name}: say overlap='skip' instead of unique=, as in task.options(unique=None)")
    options = call.options
    if call.flow is not None and call.flow.begins:
        options = msgspec.structs.replace(options, begins=True)
    return Schedule(
        VERSION, name, call.task_name, call.queue, call.lane, call.args, call.kwargs,
        None if options is NO_OPTIONS else _pack(options), calendar,
        limits, missed, overlap, call.timing.expires_ms, is_declared,
    )  # fmt: skip


class Schedules:
    """The schedules of one app, in Redis: they outlive every process, and are changed without restarts.

    All methods raise StoreError where Redis is away or refuses, and UseAsync on an event loop's thread.
    """

    def __init__(self, app: Planning) -> None:
        self._app = app

    def add(
        self, name: str, call: Call[Any], *, cron: str | None = None, every: Seconds | None = None, tz: str = "UTC",
        missed: Missed = "last", overlap: Overlap = "queue", replace: bool = False, elsewhere: bool = False,
    ) -> bool:  # fmt: skip
        """Add a schedule, which begins now.

        Args:
            name: 1-100 letters, digits, ``_ . -``.
            call: What is sent: ``task.call(...)``, or ``app.call("name", ...)`` for a task declared elsewhere.
            cron: An expression of five fields, or six with seconds in front.
            every: Or an interval, a second or longer; its occurrences are counted from 1970.
            tz: The time zone of the expression.
            missed, overlap: As those of `Planning.cron`.
            replace: Take the place of one of that name, which then goes on from its last occurrence.
            elsewhere: The task is declared in other code than this app's.

        Returns:
            False where the very same one is there.

        Raises:
            ConfigError: A value is wrong, or there is another one of that name, or one that stands in code; nothing was
                stored.
            TaskNotFound: The app does not declare the task, and `elsewhere` was not said; nothing was stored.
        """
        refuse_on_loop("schedules.add", "schedules.aadd")
        schedule = schedule_of(name, call, calendar_of(cron, every, tz), missed, overlap)
        if not elsewhere:
            self._app.find(schedule.task)
        return self._added(name, self._app.connection.ask(self._adding(schedule, replace)))

    async def aadd(
        self, name: str, call: Call[Any], *, cron: str | None = None, every: Seconds | None = None, tz: str = "UTC",
        missed: Missed = "last", overlap: Overlap = "queue", replace: bool = False, elsewhere: bool = False,
    ) -> bool:  # fmt: skip
        """Add a schedule; see `add`."""
        schedule = schedule_of(name, call, calendar_of(cron, every, tz), missed, overlap)
        if not elsewhere:
            self._app.find(schedule.task)
        return self._added(name, await self._app.connection.aask(self._adding(schedule, replace)))

    def list(self) -> Views:
        """Return the schedules, queue by queue."""
        refuse_on_loop("schedules.list", "schedules.alist")
        return self._app.connection.ask(self._listing())

    async def alist(self) -> Views:
        """Return the schedules, queue by queue."""
        return await self._app.connection.aask(self._listing())

    def pause(self, name: str) -> bool:
        """Let a schedule rest; False where it does. Raises ScheduleNotFound."""
        refuse_on_loop("schedules.pause", "schedules.apause")
        return self._changed(name, self._app.connection.ask(self._changing(name, "pause")))

    async def apause(self, name: str) -> bool:
        """Let a schedule rest; see `pause`."""
        return self._changed(name, await self._app.connection.aask(self._changing(name, "pause")))

    def resume(self, name: str) -> bool:
        """Let it go on from now: what fell into its pause does not happen. Raises ScheduleNotFound."""
        refuse_on_loop("schedules.resume", "schedules.aresume")
        return self._changed(name, self._app.connection.ask(self._changing(name, "resume")))

    async def aresume(self, name: str) -> bool:
        """Let it go on from now; see `resume`."""
        return self._changed(name, await self._app.connection.aask(self._changing(name, "resume")))

    def remove(self, name: str) -> bool:
        """Remove a schedule; one that stands in code comes back with the next worker. Raises ScheduleNotFound."""
        refuse_on_loop("schedules.remove", "schedules.aremove")
        return self._changed(name, self._app.connection.ask(self._changing(name, "remove")))

    async def aremove(self, name: str) -> bool:
        """Remove a schedule; see `remove`."""
        return self._changed(name, await self._app.connection.aask(self._changing(name, "remove")))

    def run_now(self, name: str) -> str | None:
        """Send its message now, beside its plan; returns the task id, None where its last run is not to be overlapped.

        Raises:
            ScheduleNotFound: There is none of that name.
        """
        refuse_on_loop("schedules.run_now", "schedules.arun_now")
        return self._ran(name, self._app.connection.ask(self._running(name)))

    async def arun_now(self, name: str) -> str | None:
        """Send its message now; see `run_now`."""
        return self._ran(name, await self._app.connection.aask(self._running(name)))

    def _queues(self) -> Steps[Sequence[QueueKeys]]:
        names = yield from queue_names(self._app.name, self._app.queues)
        return [QueueKeys(self._app.name, name) for name in names]

    def _adding(self, schedule: Schedule, replace: bool) -> Steps[str]:
        keys = QueueKeys(self._app.name, schedule.queue)
        return (yield from add(keys, schedule, "replace" if replace else "add"))

    def _listing(self) -> Steps[Views]:
        queues = yield from self._queues()
        # Without any task it is not known what the code declares.
        declared = self._app.declared_schedules()
        places = {(queue, name) for queue, names in declared.items() for name in names}
        code = Code(self._app.tasks, places) if self._app.tasks else None
        return (yield from views(queues, code))

    def _changing(self, name: str, mode: str) -> Steps[str]:
        checked_name("schedule", name)
        queues = yield from self._queues()
        return (yield from change(queues, name, mode))

    def _running(self, name: str) -> Steps[str]:
        checked_name("schedule", name)
        queues = yield from self._queues()
        return (yield from run_now(queues, name))

    @staticmethod
    def _added(name: str, answer: str) -> bool:
        if answer == "declared":
            raise ConfigError(f"schedule {name!r} stands in code: change it there, or give another name")
        if answer == "there":
            raise ConfigError(f"there is another schedule {name!r}: give replace=True to change it, or another name")
        return answer == "done"

    def _changed(self, name: str, answer: str) -> bool:
        if answer == "none":
            raise ScheduleNotFound(f"app {self._app.name!r} has no schedule {name!r}: see `streamwork schedules list`")
        return answer == "done"

    def _ran(self, name: str, answer: str) -> str | None:
        self._changed(name, "none" if answer in ("", "changed") else answer)
        return None if answer == "running" else answer


class Planning(ABC):
    """The part of an app that declares schedules."""

    name: str
    connection: Connection
    tasks: dict[str, Task[..., Any]]
    _planned: dict[tuple[str, str], Schedule]

    @property
    @abstractmethod
    def queues(self) -> list[str]:
        """The queues that this app uses."""

    @abstractmethod
    def find(self, name: str) -> Task[..., Any]:
        """Return a declared task; raises TaskNotFound."""

    @property
    def schedules(self) -> Schedules:
        """The schedules in Redis, to look at and to change."""
        return Schedules(self)

    def cron(
        self, expression: str, *, tz: str = "UTC", name: str | None = None, args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None, missed: Missed = "last", overlap: Overlap = "queue",
        gap: Gap = "auto", twice: Twice = "auto",
    ) -> Callable[[T], T]:  # fmt: skip
        """Declare a schedule: ``@app.cron("*/5 9-17 * * mon-fri", tz="Europe/Paris")`` above ``@app.task``.

        Any worker of the app fires it, and ``streamwork scheduler``; each occurrence is sent once, however many there
        are. What is not declared any more is not fired by workers of the new code.

        Args:
            expression: Five fields (minute, hour, day, month, weekday), or six with seconds in front.
            tz: A zone of the IANA database.
            name: Its name; None = the task's, for the only schedule of a task.
            args, kwargs: The task's arguments.
            missed: What becomes of occurrences that nobody was there for: ``last`` = the last one happens when somebody
                is, ``all`` = all of them, 1,000 at most, ``skip`` = none that is more than a minute old.
            overlap: When one comes while the message before has not ended: ``queue`` = it is sent, ``skip`` = it is
                not, ``cancel-running`` = it is, and the one before is cancelled.
            gap: What becomes of a time that clocks leap over, ``shift`` or ``skip``; see `Cron`.
            twice: Which one counts of a time that comes twice, ``first``, ``second`` or ``both``; see `Cron`.

        Raises:
            ConfigError: A value is wrong, or two schedules have one name.
            ArgumentError: The arguments do not fit the task.
        """
        calendar = calendar_of(expression, None, tz, gap, twice)
        return lambda task: self._plan(task, calendar, name, tuple(args), dict(kwargs or {}), missed, overlap)

    def every(
        self, interval: Seconds, *, name: str | None = None, args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None, missed: Missed = "last", overlap: Overlap = "queue",
    ) -> Callable[[T], T]:  # fmt: skip
        """Declare a schedule by an interval, a second or longer, counted from 1970; see `cron`."""
        calendar = calendar_of(None, interval)
        return lambda task: self._plan(task, calendar, name, tuple(args), dict(kwargs or {}), missed, overlap)

    def _plan(
        self, task: T, calendar: Calendar, name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any],
        missed: Missed, overlap: Overlap,
    ) -> T:  # fmt: skip
        if not isinstance(task, Task):
            raise ConfigError(f"{task!r} is not a task: write @app.cron(...) or @app.every(...) above @app.task")
        schedule = schedule_of(
            name or task.name, task.call(*args, **kwargs), calendar, missed, overlap, is_declared=True
        )
        place = schedule.queue, schedule.name
        if place in self._planned:
            raise ConfigError(f"two schedules are named {schedule.name!r}: give one of them name=")
        self._planned[place] = schedule
        return task

    def declared_schedules(self) -> dict[str, dict[str, bytes]]:
        """Return what is declared, as it is stored: queue to name to record."""
        found: dict[str, dict[str, bytes]] = {}
        for (queue, name), schedule in self._planned.items():
            found.setdefault(queue, {})[name] = encode_schedule(schedule)
        return found
