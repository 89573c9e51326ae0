"""Schedules as data: what is sent when, and what becomes of occurrences that nobody was there for."""

from __future__ import annotations

from itertools import islice
from typing import Literal, NamedTuple, cast, get_args

import msgspec

from streamwork.errors import ConfigError, DecodeError
from streamwork.model.calendar import Calendar, Every, following, occurrences

Missed = Literal["skip", "last", "all"]
Overlap = Literal["queue", "skip", "cancel-running"]

# A newer form is left to those that know it.
VERSION = 1
# An occurrence that is decided later than this was missed: every scheduler was away.
ON_TIME_MS = 60_000
# With ``missed="all"`` no more than so many are made up for; the oldest of them go.
MOST_MADE_UP = 1_000
# Where the latest occurrence is looked for, back from now, until there is one.
_LOOK_BACK_MS = (60_000, 3_600_000, 86_400_000, 32 * 86_400_000, 400 * 86_400_000)


class Schedule(msgspec.Struct, frozen=True):
    """One schedule, as it is stored.

    Attributes:
        version: Form of this record.
        name: Its name, unique in its queue.
        task: Task name.
        queue, lane: Where its messages go.
        args, kwargs: Encoded arguments; kwargs may be None.
        options: Encoded options of the message, None = none.
        calendar: When.
        limits: Packed limits of its messages; empty = none.
        missed: What becomes of occurrences that no scheduler was there for: ``skip`` = nothing, ``last`` = the last of
            them happens, ``all`` = all, 1,000 at most.
        overlap: What becomes of one that comes while the message before has not ended: ``queue`` = it is sent, ``skip``
            = it is not, ``cancel-running`` = it is, and the one before is cancelled.
        expires_ms: A message that has not begun so long after its instant does not begin; None = whenever.
        is_declared: It stands in code: only schedulers of that code fire it.
    """

    version: int
    name: str
    task: str
    queue: str
    lane: str
    args: bytes
    kwargs: bytes | None
    options: bytes | None
    calendar: Calendar
    limits: bytes = b""
    missed: Missed = "last"
    overlap: Overlap = "queue"
    expires_ms: int | None = None
    is_declared: bool = False


class Due(NamedTuple):
    """What is to be decided of a schedule now.

    Attributes:
        fire: Occurrences to send for, oldest first.
        pass_over: Pass over all up to this instant first; None = there is none to pass over.
        next_ms: When the next one comes; None = never.
    """

    fire: list[int]
    pass_over: int | None
    next_ms: int | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Schedule).decode


def encode_schedule(schedule: Schedule) -> bytes:
    """Return a schedule as it is stored; the same one gives the same bytes."""
    return _encode(schedule)


def decode_schedule(record: bytes) -> Schedule:
    """Return a stored schedule; raises DecodeError for what is none, or of a newer version."""
    try:
        schedule = _decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a schedule: {error}") from error
    if schedule.version != VERSION:
        raise DecodeError(f"a schedule of version {schedule.version}, and this is version {VERSION}")
    return schedule


def checked_policies(missed: object, overlap: object) -> None:
    """Raise ConfigError for a policy that does not exist."""
    for name, value, kind in (("missed", missed, Missed), ("overlap", overlap, Overlap)):
        if value not in get_args(kind):
            raise ConfigError(f"{name}={value!r}: use one of {', '.join(cast('tuple[str, ...]', get_args(kind)))}")


def due(schedule: Schedule, mark_ms: int, now_ms: int) -> Due:
    """Return what is to be decided of a schedule at an instant, pure.

    Args:
        schedule: It.
        mark_ms: The last occurrence that was decided.
        now_ms: The server's time.
    """
    calendar = schedule.calendar
    first = following(calendar, mark_ms)
    if first is None or first > now_ms:
        return Due([], None, first)
    second = following(calendar, first)
    if second is None or second > now_ms:  # as it is nearly always, and both are known from the look before
        is_passed_over = schedule.missed == "skip" and now_ms - first > ON_TIME_MS
        return Due([], first, second) if is_passed_over else Due([first], None, second)
    next_ms = calendar.next_after(now_ms)
    if schedule.missed == "all":
        found = list(islice(occurrences(calendar, mark_ms, now_ms), MOST_MADE_UP + 1))
        if len(found) <= MOST_MADE_UP:
            return Due(found, None, next_ms)
        found = _latest(calendar, mark_ms, now_ms, MOST_MADE_UP + 1)
        return Due(found[1:], found[0], next_ms)
    last = _latest(calendar, mark_ms, now_ms, 1)[-1]
    if schedule.missed == "skip" and now_ms - last > ON_TIME_MS:
        return Due([], last, next_ms)
    return Due([last], None, next_ms)


def _latest(calendar: Calendar, mark_ms: int, now_ms: int, most: int) -> list[int]:
    """Return the latest occurrences after the mark up to now, oldest first; there is at least one."""
    if isinstance(calendar, Every):
        last = now_ms // calendar.interval_ms * calendar.interval_ms
        count = min(most, (last - mark_ms - 1) // calendar.interval_ms + 1)
        return [last - back * calendar.interval_ms for back in range(count - 1, -1, -1)]
    found: list[int] = []
    for span_ms in _LOOK_BACK_MS:
        after_ms = max(mark_ms, now_ms - span_ms)
        found = list(occurrences(calendar, after_ms, now_ms))
        if len(found) >= most or after_ms == mark_ms:
            return found[-most:]
    return list(occurrences(calendar, mark_ms, now_ms))[-most:]
