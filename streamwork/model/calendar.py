"""When a schedule is due: cron expressions in a time zone, and fixed intervals. Pure: nothing here reads a clock.

An occurrence is an instant of UTC in whole milliseconds; a schedule's occurrences are the same wherever and however
often they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, cast, get_args
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from streamwork.errors import ConfigError

Gap = Literal["auto", "shift", "skip"]
Overlap = Literal["auto", "first", "second", "both"]

# Clocks are set by an hour or two, and by a day where a land changed sides of the date line (Samoa, 2011).
_AROUND = timedelta(hours=26)
_SECOND_MS = 1_000
# Two for each of some thousand schedules, a few hundred bytes each.
_KEPT = 8_192


class Cron(msgspec.Struct, frozen=True, tag="cron"):
    """A cron expression in a time zone.

    Five fields (minute, hour, day of the month, month, day of the week), or six with seconds in front; names, ranges,
    steps, ``L``, ``LW``, ``5L`` and ``1#2``, as Debian's cron reads them.

    Attributes:
        expression: The expression.
        tz: A zone of the IANA database, such as ``Europe/Paris``.
        gap: What becomes of a time that the clocks leap over: ``shift`` = it is due the same span after the leap as it
            would have been after the hour it was leapt from; ``skip`` = it does not happen; ``auto`` = ``skip`` where
            minute or hour begins with ``*``, since the next one is near, else ``shift``.
        overlap: Which one counts of a time that comes twice: ``first``, ``second`` or ``both``; ``auto`` = ``both``
            where minute or hour begins with ``*``, since intervals go on, else ``first``.
    """

    expression: str
    tz: str = "UTC"
    gap: Gap = "auto"
    overlap: Overlap = "auto"

    @property
    def is_frequent(self) -> bool:
        """Whether minute or hour begins with ``*``: it means "every so often", not "at this time"."""
        minute, hour = self.expression.split()[-5:-3]
        return minute.startswith("*") or hour.startswith("*")

    def next_after(self, at_ms: int) -> int | None:
        """Return the first occurrence after an instant; None = there is none within fifty years."""
        zone = ZoneInfo(self.tz)
        after = datetime.fromtimestamp(at_ms / 1000, UTC)
        local = after.astimezone(zone).replace(tzinfo=None)
        is_steady = _offset(after - _AROUND, zone) == _offset(after + _AROUND, zone)
        # Where the clocks are set, what comes first here may come last there, so look a little before and behind.
        look_from = local if is_steady else local - timedelta(hours=3)
        found: int | None = None
        for naive in CronSim(self.expression, look_from - timedelta(seconds=1)):
            if found is not None and (is_steady or naive > _local(found, zone) + timedelta(hours=3)):
                break
            later = [instant for instant in self._instants(naive, zone) if instant > at_ms]
            found = min([*later, *([] if found is None else [found])], default=None)
        return found

    def _instants(self, naive: datetime, zone: ZoneInfo) -> list[int]:
        first, second = (naive.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        if first.utcoffset() == second.utcoffset():
            return [_ms(first)]
        if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != naive:  # leapt over
            is_kept = self.gap == "shift" or (self.gap == "auto" and not self.is_frequent)
            return [_ms(first)] if is_kept else []
        overlap = ("both" if self.is_frequent else "first") if self.overlap == "auto" else self.overlap
        return [_ms(each) for each, name in ((first, "first"), (second, "second")) if overlap in (name, "both")]


class Every(msgspec.Struct, frozen=True, tag="every"):
    """A fixed interval, counted from 1970, so that every process computes the same occurrences.

    Attributes:
        interval_ms: ≥ 1000.
    """

    interval_ms: int

    def next_after(self, at_ms: int) -> int:
        """Return the first occurrence after an instant."""
        return (at_ms // self.interval_ms + 1) * self.interval_ms


Calendar = Cron | Every


@lru_cache(_KEPT)
def following(calendar: Calendar, at_ms: int) -> int | None:
    """Return the first occurrence after an instant; None = there is none.

    Kept, since it is asked for at every look at a schedule, and takes long to find (0.1 ms).
    """
    return calendar.next_after(at_ms)


def cron(expression: str, tz: str = "UTC", gap: Gap = "auto", overlap: Overlap = "auto") -> Cron:
    """Return a checked cron expression; raises ConfigError, which names what is wrong."""
    if not isinstance(expression, str):
        raise ConfigError(f"cron={expression!r}: give an expression such as '*/5 9-17 * * mon-fri'")
    made = Cron(expression, tz, gap, overlap)
    try:
        is_possible = next(CronSim(expression, datetime(2024, 1, 1)), None) is not None  # noqa: DTZ001 - a local time
    except CronSimError as error:
        raise ConfigError(f"cron={expression!r}: {str(error).lower()} (minute hour day month weekday)") from None
    if not is_possible:
        raise ConfigError(f"cron={expression!r}: it never comes")
    try:
        ZoneInfo(tz)
    except (KeyError, ValueError, TypeError, OSError):
        raise ConfigError(f"tz={tz!r}: no such time zone; give a name such as 'Europe/Paris'") from None
    for name, value, kind in (("gap", gap, Gap), ("overlap", overlap, Overlap)):
        if value not in get_args(kind):
            raise ConfigError(f"{name}={value!r}: use one of {', '.join(cast('tuple[str, ...]', get_args(kind)))}")
    return made


def every(interval_ms: int) -> Every:
    """Return a checked interval; raises ConfigError below a second."""
    if interval_ms < _SECOND_MS:
        raise ConfigError(f"every={interval_ms / 1000:g}: a second or longer")
    return Every(interval_ms)


def occurrences(calendar: Calendar, after_ms: int, until_ms: int) -> Iterator[int]:
    """Yield the occurrences after one instant up to another."""
    at_ms = calendar.next_after(after_ms)
    while at_ms is not None and at_ms <= until_ms:
        yield at_ms
        at_ms = calendar.next_after(at_ms)


def _offset(at: datetime, zone: ZoneInfo) -> timedelta | None:
    return at.astimezone(zone).utcoffset()


def _local(at_ms: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, zone).replace(tzinfo=None)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
