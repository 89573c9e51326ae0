"""The schedules of queues: a look at them, and the messages of their occurrences."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from streamwork.broker.checkup import Check
from streamwork.broker.coverage import Unserved
from streamwork.broker.events import event
from streamwork.broker.steps import Steps, pairs
from streamwork.errors import DecodeError
from streamwork.ids import new_task_id
from streamwork.model.calendar import Cron
from streamwork.model.schedule import ON_TIME_MS, Schedule, decode_schedule, encode_schedule
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.store.keys import queues as queue_set
from streamwork.store.planning import Fired, fire, plan, unique_name
from streamwork.wire.message import FIRST_ATTEMPT, NO_OPTIONS, Options, encode_attempt, encode_message

_NEW = encode_attempt(FIRST_ATTEMPT).encode()
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode
_options = msgspec.msgpack.Decoder(Options).decode
# Headers of an occurrence's message.
SCHEDULE, SCHEDULED_AT = "schedule", "scheduled_at_ms"

_CHANGED = {"pause": "schedule.paused", "resume": "schedule.resumed", "remove": "schedule.removed"}


class Stored(NamedTuple):
    """A schedule as it is in Redis: name, record, last decided occurrence (ms, 0 = lost), whether it is paused."""

    name: str
    record: bytes
    mark_ms: int
    is_paused: bool


class ScheduleView(msgspec.Struct):
    """A schedule, for people.

    Attributes:
        name, queue, task: What it is called, and what it sends where.
        when: Its expression or interval.
        tz: Its time zone; empty for an interval.
        next_at_ms: When it comes next; None = it is paused, or cannot be read.
        last_at_ms: The last occurrence that was decided, or since when it is there.
        is_paused, is_declared: It rests; it stands in code.
        missed, overlap: Its policies.
        problem: Why it does not fire; empty = it does.
        late_ms: How long ago the first occurrence was due that nobody has decided yet; 0 = there is none.
    """

    name: str
    queue: str
    task: str = ""
    when: str = ""
    tz: str = ""
    next_at_ms: int | None = None
    last_at_ms: int = 0
    is_paused: bool = False
    is_declared: bool = False
    missed: str = ""
    overlap: str = ""
    problem: str = ""
    late_ms: int = 0


class Code(NamedTuple):
    """What an app declares: the names of its tasks, and queues and names of its schedules."""

    tasks: Container[str]
    schedules: Container[tuple[str, str]]


def schedules_of(keys: QueueKeys) -> Steps[tuple[list[Stored], int]]:
    """Find the schedules of a queue, by name, and the server's time in ms."""
    records, marks, (seconds, micros) = yield [
        plain("HGETALL", keys.schedules), plain("HGETALL", keys.schedule_marks), plain("TIME")
    ]  # fmt: skip
    states = pairs(marks)
    found: list[Stored] = []
    for name, record in sorted(pairs(records).items()):
        mark, _, state = bytes(states.get(name, b"")).partition(b" ")
        found.append(Stored(name.decode(errors="replace"), record, int(mark) if mark.isdigit() else 0, state == b"p"))
    return found, int(seconds) * 1000 + int(micros) // 1000


def occurrence(schedule: Schedule, at_ms: int) -> Fired:
    """Return the message of an occurrence."""
    task_id = new_task_id()
    options = NO_OPTIONS if schedule.options is None else _options(schedule.options)
    headers = {**(options.headers or {}), SCHEDULE: schedule.name, SCHEDULED_AT: str(at_ms)}
    expiry_ms = None if schedule.expires_ms is None else at_ms + schedule.expires_ms
    options = msgspec.structs.replace(options, headers=headers, expires_at_ms=expiry_ms or options.expires_at_ms)
    body = encode_message(task_id, schedule.task, schedule.args, schedule.kwargs, options, None)
    limits = schedule.limits
    if schedule.overlap != "queue":
        # Under this name it is free again once it has ended.
        own = ("u", unique_name(schedule.name), "r", 0, 0)
        limits = _pack([*(_unpack(limits) if limits else []), own])
    return Fired(task_id, b"%b\n%b\n%b" % (schedule.lane.encode(), _NEW, body), limits)


def planned(headers: Mapping[str, str]) -> tuple[str, datetime | None]:
    """Return which schedule sent a message with these headers, and the instant it meant; empty and None = none did."""
    at_ms = headers.get(SCHEDULED_AT, "")
    return headers.get(SCHEDULE, ""), datetime.fromtimestamp(int(at_ms) / 1000, UTC) if at_ms.isdigit() else None


def views(queues: Iterable[QueueKeys], code: Code | None) -> Steps[list[ScheduleView]]:
    """Look at the schedules of several queues; `code` = None where it is not known."""
    found: list[ScheduleView] = []
    for keys in queues:
        stored, now_ms = yield from schedules_of(keys)
        found += [_view(keys.queue, one, now_ms, code) for one in stored]
    return found


def _view(queue: str, one: Stored, now_ms: int, code: Code | None) -> ScheduleView:
    view = ScheduleView(one.name, queue, last_at_ms=one.mark_ms, is_paused=one.is_paused)
    try:
        schedule = decode_schedule(one.record)
    except DecodeError as error:
        view.problem = str(error)
        return view
    calendar = schedule.calendar
    view.task, view.is_declared = schedule.task, schedule.is_declared
    view.missed, view.overlap = schedule.missed, schedule.overlap
    if isinstance(calendar, Cron):
        view.when, view.tz = calendar.expression, calendar.tz
    else:
        view.when = f"every {calendar.interval_ms / 1000:g} s"
    try:
        view.next_at_ms = None if one.is_paused else calendar.next_after(max(one.mark_ms, now_ms))
        first_ms = calendar.next_after(one.mark_ms) if one.mark_ms and not one.is_paused else None
        view.late_ms = 0 if first_ms is None else max(0, now_ms - first_ms)
    except Exception as error:  # noqa: BLE001 - such as a zone that this machine does not have
        view.problem = f"its calendar cannot be read here: {error}"
    if not one.mark_ms:
        view.problem = "its mark is lost: resume it, and it goes on from now"
    if code is not None and schedule.task not in code.tasks:
        view.problem = f"no task {schedule.task!r} in this app"
    elif code is not None and schedule.is_declared and (queue, one.name) not in code.schedules:
        view.problem = "this code declares it no more, and does not fire it: remove it"
    return view


def schedule_checks(namespace: str, found: Sequence[ScheduleView]) -> Steps[list[Check]]:
    """Tell which of these schedules do not fire, and why."""
    names = sorted({one.queue for one in found if not one.is_paused})
    # Whoever fires schedules also looks for the dead: where nobody's pulse is, nobody is there.
    pulses = yield [plain("EXISTS", QueueKeys(namespace, name).pulse) for name in names]
    deserted = {name for name, is_there in zip(names, pulses, strict=True) if not is_there}
    checks = [_nobody_fires(name, found) for name in sorted(deserted)]
    for one in found:
        what, name = f"schedule {one.name} of queue {one.queue}", one.name
        if one.is_paused:
            checks.append(Check("schedules", "note", f"{what} is paused", f"streamwork schedules resume {name}"))
        elif one.problem:
            remedy = f"correct it, or streamwork schedules remove {name}"
            checks.append(Check("schedules", "warning", f"{what}: {one.problem}", remedy))
        elif one.late_ms > ON_TIME_MS and one.queue not in deserted:
            late = f"{what} should have fired {one.late_ms // 1000:,} s ago, and has not"
            remedy = "start a worker or scheduler of the code that declares it, and see its log"
            checks.append(Check("schedules", "warning", late, remedy))
    return checks


def _nobody_fires(queue: str, found: Iterable[ScheduleView]) -> Check:
    names = ", ".join(one.name for one in found if one.queue == queue and not one.is_paused)
    what = f"nobody fires {names} of queue {queue}: no worker and no scheduler is there"
    return Check("schedules", "warning", what, f"start one: {Unserved(queue, []).remedy}, or streamwork scheduler")


def add(keys: QueueKeys, schedule: Schedule, mode: str) -> Steps[str]:
    """Add or replace a schedule; answers as plan.lua says."""
    (answer,) = yield [plan(keys, schedule.name, mode, encode_schedule(schedule))]
    yield [plain("SADD", queue_set(keys.namespace), keys.queue)]
    if answer == "done":
        yield [event(keys.namespace, "schedule.added", queue=keys.queue, schedule=schedule.name)]
    return str(answer)


def change(queues: Iterable[QueueKeys], name: str, mode: str) -> Steps[str]:
    """Pause, resume or remove a schedule wherever it is; answers ``done``, ``same`` or ``none``."""
    changed = list(queues)
    answers = yield [plan(keys, name, mode) for keys in changed]
    done = [keys for keys, answer in zip(changed, answers, strict=True) if answer == "done"]
    if done:
        yield [event(keys.namespace, _CHANGED[mode], queue=keys.queue, schedule=name) for keys in done]
    return next((str(answer) for answer in answers if answer != "none"), "none")


def run_now(queues: Iterable[QueueKeys], name: str) -> Steps[str]:
    """Send a schedule's message now, beside its plan; returns its task id, or fire.lua's answer; empty = none."""
    for keys in queues:
        stored, now_ms = yield from schedules_of(keys)
        for one in stored:
            if one.name == name:
                schedule = decode_schedule(one.record)
                message = occurrence(schedule, now_ms)
                (answer,) = yield [fire(keys, name, one.record, None, message, schedule.overlap)]
                return message.task_id if answer == "fired" else str(answer)
    return ""
