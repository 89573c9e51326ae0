"""What a replay is about: filters that mean the same messages whenever they are asked again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import MOST_SLOTS
from streamwork.errors import ConfigError
from streamwork.history import HistoryOptions, glob_of
from streamwork.model.instant import past_instant_ms

_OPEN = ("follow", "reverse", "after")


class Options(NamedTuple):
    """How a replay goes; see `Replaying.replay`."""

    into: str
    changes: Mapping[str, Any]
    rate: float | None
    pace: float | None
    dry_run: bool
    resume: bool
    anew: bool
    most: int | None


class Window(NamedTuple):
    """Filters with their times as instants.

    Attributes:
        since_ms, until_ms: None = since ever; what a replay sends itself ends behind `until_ms`.
        limit: Attempts at most.
        others: All the rest.
    """

    since_ms: int | None
    until_ms: int
    limit: int | None
    others: HistoryOptions

    @property
    def asked(self) -> HistoryOptions:
        """Return the filters as `Remembering.history` takes them."""
        since = {} if self.since_ms is None else {"since": _datetime(self.since_ms)}
        limit = {} if self.limit is None else {"limit": self.limit}
        return cast(HistoryOptions, {**self.others, **since, **limit, "until": _datetime(self.until_ms)})

    @property
    def what(self) -> tuple[Any, ...]:
        """Return what tells these filters from others, whenever they are said."""
        others: Mapping[str, Any] = self.others
        facts = {name: value for name, value in others.items() if value not in (None, False, (), [], "")}
        if "task" in facts:
            facts["task"] = glob_of(facts["task"])
        for name in ("state", "tags"):
            if name in facts and not isinstance(facts[name], str):
                facts[name] = sorted(facts[name])
        return tuple(sorted(facts.items()))


def window_of(asked: HistoryOptions) -> Window:
    """Return filters with their times as instants; raises ConfigError for those without an end."""
    for name in _OPEN:
        if asked.get(name):
            raise ConfigError(f"{name}: a replay goes through what is there, from the oldest on; leave it out")
    now_ms = SYSTEM_CLOCK.now_ms()
    since_ms = past_instant_ms(asked.get("since"), "since", now_ms)
    until_ms = past_instant_ms(asked.get("until"), "until", now_ms)
    others = {name: value for name, value in asked.items() if name not in ("since", "until", "limit", *_OPEN)}
    return Window(since_ms, now_ms if until_ms is None else until_ms, asked.get("limit"), cast(HistoryOptions, others))


def _datetime(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def checked_concurrency(value: object) -> int:
    """Return a number of bodies at a time; raises ConfigError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_SLOTS:
        raise ConfigError(f"concurrency={value!r}: give a whole number from 1 to {MOST_SLOTS:,}")
    return value
