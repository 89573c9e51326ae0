"""Limits of tasks as data: how many at once, how fast, fairly among whom, and which only once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from streamwork.errors import ConfigError
from streamwork.model.span import Seconds, milliseconds

# A group's name, a key, or what finds it among the arguments of a call; None from it = this call has no such limit.
Key = str | int | Callable[..., Any]

_RATE = re.compile(r"\s*(\d{1,12})\s*/\s*(\d{0,9})\s*([a-z]+)\s*")
_UNITS = {
    "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600,
    "d": 86_400, "day": 86_400,
}  # fmt: skip
_MOST = 1_000_000_000


def _whole(what: str, value: object, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise ConfigError(f"{what}={value!r}: give a whole number from {least} to {_MOST}")
    return value


def checked_key(what: str, key: object) -> None:
    """Raise ConfigError for what cannot be a key, naming the option."""
    if key is not None and not isinstance(key, (str, int)) and not callable(key):
        raise ConfigError(f"{what}: key={key!r}: give a text, or a function of the task's arguments")


@dataclass(frozen=True, slots=True)
class Limit:
    """How many of a task run at once, in all workers together.

    A task message counts from when it is on its lane to its end; on its way to a retry it does not.

    Attributes:
        most: 1 or more.
        key: A limit for each key: a function of the task's arguments, or a text. None = one for the task. A function
            that returns None leaves that call unlimited.
        name: Tasks with limits of one name share them; None = the task's own.

    Raises:
        ConfigError: One of them is of another type or out of range.
    """

    most: int
    key: Key | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _whole("Limit: most", self.most)
        checked_key("Limit", self.key)


@dataclass(frozen=True, slots=True, init=False)
class Rate:
    """How often a task starts, in all workers together.

    Attributes:
        count: So many …
        period_us: … in so long, microseconds.
        burst: How many may start at once after a pause; None = all of `count`. With ``window=True`` it has no meaning.
        key, name: As those of `Limit`.
        window: No span of that length ever sees more than `count` starts (a sliding window, which keeps an instant for
            each start). Otherwise a bucket of `burst` tokens that fills evenly: a span sees `burst` more at most.

    Raises:
        ConfigError: The text is no rate, such as ``10/s``, ``100/m`` or ``5/30s``, or another value is wrong.
    """

    count: int
    period_us: int
    burst: int | None
    key: Key | None
    name: str | None
    window: bool

    def __init__(
        self, rate: str, *, burst: int | None = None, key: Key | None = None, name: str | None = None,
        window: bool = False,
    ) -> None:  # fmt: skip
        found = _RATE.fullmatch(rate.lower()) if isinstance(rate, str) else None
        if found is None or found[3] not in _UNITS or found[2] == "0":
            raise ConfigError(f"Rate({rate!r}): give so many in so long, such as '10/s', '100/m', '1000/h' or '5/30s'")
        if burst is not None:
            _whole("Rate: burst", burst)
            if window:
                raise ConfigError("Rate(burst=, window=True): a window has no burst; leave one of them out")
        checked_key("Rate", key)
        put = object.__setattr__
        put(self, "count", _whole("Rate: count", int(found[1])))
        put(self, "period_us", int(found[2] or 1) * _UNITS[found[3]] * 1_000_000)
        put(self, "burst", burst)
        put(self, "key", key)
        put(self, "name", name)
        put(self, "window", bool(window))


@dataclass(frozen=True, slots=True)
class Group:
    """A share of a queue: groups take turns, so that the many messages of one do not hold up another's first.

    Attributes:
        name: Which one: a text.
        weight: Turns for each turn of a group of weight 1; above 0, and 1000 at most.
        most: How many of it run at once; 0 = as many as there is room for.

    Raises:
        ConfigError: One of them is of another type or out of range.
    """

    name: str
    weight: float = 1.0
    most: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"Group({self.name!r}): give its name, a text")
        is_number = isinstance(self.weight, (int, float)) and not isinstance(self.weight, bool)
        if not is_number or not 0.001 <= self.weight <= 1000:
            raise ConfigError(f"Group: weight={self.weight!r}: give a number from 0.001 to 1000")
        _whole("Group: most", self.most, 0)


@dataclass(frozen=True, slots=True)
class Unique:
    """One task message at a time for a key.

    Attributes:
        key: A text, or a function of the task's arguments; None = all arguments together.
        until: ``done`` = while it has not ended; ``start`` = while it has not begun; a span of time = for so long from
            now, whether or not it has ended.
        on_duplicate: ``coalesce`` = answer with the handle of the one there is; ``reject`` = raise `AlreadyQueued`;
            ``replace`` = cancel the one there is, if it has not begun, and send this one.

    Raises:
        ConfigError: One of them is of another type or out of range.
    """

    key: Key | None = None
    until: Literal["done", "start"] | Seconds = "done"
    on_duplicate: Literal["coalesce", "reject", "replace"] = "coalesce"

    def __post_init__(self) -> None:
        checked_key("Unique", self.key)
        if self.on_duplicate not in ("coalesce", "reject", "replace"):
            raise ConfigError(f"Unique: on_duplicate={self.on_duplicate!r}: use 'coalesce', 'reject' or 'replace'")
        if self.until not in ("done", "start") and not self._span_ms:
            raise ConfigError(f"Unique: until={self.until!r}: use 'done', 'start' or a span of time above 0")

    @property
    def _span_ms(self) -> int:
        if isinstance(self.until, str):
            if self.until not in ("done", "start"):
                raise ConfigError(f"Unique: until={self.until!r}: use 'done', 'start' or a span of time")
            return 0
        if self.until is None:  # the type forbids it, and milliseconds() takes it for "no span"
            raise ConfigError("Unique: until=None: use 'done', 'start' or a span of time")
        return milliseconds(self.until, "Unique: until")

    def limit(self, name: str) -> tuple[Any, ...]:
        """Return this as flow.lua reads it."""
        policy = {"coalesce": "c", "reject": "r", "replace": "p"}[self.on_duplicate]
        return ("u", name, policy, self._span_ms, int(self.until == "start"))


@dataclass(frozen=True, slots=True)
class Debounce:
    """Of several messages with one key that come within a span of each other, only the last one runs.

    Attributes:
        quiet: How long it must be quiet; a span of time above 0.
        key: A text or number, or what finds one among the arguments (None: this call is not held back); without a key
            all calls of the task count together, whatever their arguments.
    """

    quiet: Seconds
    key: Key | None = None

    def __post_init__(self) -> None:
        checked_key("Debounce", self.key)
        if self.quiet is None or not milliseconds(self.quiet, "Debounce: quiet"):
            raise ConfigError(f"debounce={self.quiet!r}: nothing would be held back; leave the option out for none")
