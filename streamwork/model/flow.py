"""What a task asks for: its limits, resolved for one call where that is sent.

What a key function or a group function says is found out at the caller; the message carries the outcome with its
numbers. So it is the limit of the message that asks which counts, and a deploy may change one while older messages
wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec

from streamwork.errors import ConfigError
from streamwork.model.lane import lane_tags
from streamwork.model.limits import Debounce, Group, Key, Limit, Rate, Unique, checked_key
from streamwork.model.span import milliseconds

# Longer names are cut and told apart by a digest.
_LONGEST = 150
_DIGESTED = re.compile("#[0-9a-f]{16}$")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[list[Any]]).decode
# Where messages of groups count together that need the same tags: this, and the tags.
WINDOW = "*"


class Resolved(NamedTuple):
    """What one call asks for.

    Attributes:
        limits: Packed for flow.lua.
        begins: The worker has to say when it starts.
        delay_ms: It waits so long first (debounce); 0 = the call's own timing counts.
    """

    limits: bytes
    begins: bool
    delay_ms: int


class Flow(NamedTuple):
    """The limits of a task, before any call.

    Attributes:
        rates, limits: Each counts; all must have room.
        order: Calls of one key run one at a time, in the order in which they were sent.
        group: A group, its name, or what finds one of them among the arguments.
        unique, debounce: Of which message there is only one.
    """

    rates: tuple[Rate, ...] = ()
    limits: tuple[Limit, ...] = ()
    order: Key | None = None
    group: Key | Group | None = None
    unique: Unique | None = None
    debounce: Debounce | None = None

    def changed(self, options: Mapping[str, object]) -> Flow:
        """Return this with those options of `FLOW_OPTIONS` that are among these; raises ConfigError."""
        made = self
        if "rate" in options:
            made = made._replace(rates=_several("rate", options["rate"], Rate))
        if "concurrency" in options:
            made = made._replace(limits=_several("concurrency", options["concurrency"], Limit))
        if "key" in options:
            checked_key("key", options["key"])
            made = made._replace(order=options["key"])  # type: ignore[arg-type] # looked at above
        if "group" in options:
            group = options["group"]
            if not (group is None or isinstance(group, (str, Group)) or callable(group)) or group == "":
                raise ConfigError(f"group={group!r}: give a name, a Group, or a function of the task's arguments")
            made = made._replace(group=group)
        if "unique" in options:
            made = made._replace(unique=_unique(options["unique"]))
        if "debounce" in options:
            made = made._replace(debounce=_debounce(options["debounce"]))
        return made

    def resolve(
        self, task: str, lane: str, packed: tuple[bytes, bytes | None], args: Any, kwargs: Any
    ) -> Resolved | None:
        """Return what a call asks for, None = nothing.

        Args:
            task: The task's name.
            lane: Where it goes.
            packed: Its arguments as they are stored.
            args, kwargs: Its arguments.

        Raises:
            ConfigError: A key or group function raised, or returned what is none; nothing was sent.
        """

        def found(option: str, key: object) -> Any:
            if not callable(key):
                return key
            try:
                return key(*args, **kwargs)
            except Exception as error:
                what = f"the function of {option} raised {type(error).__name__}: {error}"
                raise ConfigError(f"task {task}: {what}; nothing was sent") from error

        limits: list[tuple[Any, ...]] = []
        if self.order is not None and (key := found("key", self.order)) is not None:
            limits.append(("k", _name("k", _escaped(task), "key", key)))
        for limit, owner in zip(self.limits, _owners(task, self.limits), strict=True):
            if limit.key is None or (key := found("concurrency", limit.key)) is not None:
                name = _name("c", owner, "concurrency", None if limit.key is None else key)
                limits.append(("c", name, limit.most))
        if self.group is not None and (group := found("group", self.group)) is not None:
            group = group if isinstance(group, Group) else Group(str(group))
            limits.append(("g", group_line(group.name), float(group.weight), group.most))
            limits.append(("v", window_of(lane)))
        keyed = [(rate, found("rate", rate.key)) for rate in self.rates]
        owners = _owners(task, self.rates)
        limits += [
            _rate(rate, owner, key)
            for (rate, key), owner in zip(keyed, owners, strict=True)
            if rate.key is None or key is not None
        ]
        delay_ms = self._once(limits, task, packed, found)
        if not limits:
            return None
        begins = any(limit[0] in "tw" or (limit[0] == "u" and limit[4]) for limit in limits)
        return Resolved(_pack(limits), begins, delay_ms)

    def _once(
        self, limits: list[tuple[Any, ...]], task: str, packed: tuple[bytes, bytes | None],
        found: Callable[[str, object], Any],
    ) -> int:  # fmt: skip
        everything = hashlib.blake2b(packed[0] + b"\0" + (packed[1] or b""), digest_size=16).hexdigest
        if self.unique is not None:
            key = everything() if self.unique.key is None else found("unique", self.unique.key)
            if key is not None:
                limits.append(self.unique.limit(_name("u", _escaped(task), "unique", key)))
        if self.debounce is None:
            return 0
        key = None if self.debounce.key is None else found("debounce", self.debounce.key)
        if key is None and self.debounce.key is not None:
            return 0
        limits.append(("u", _name("d", _escaped(task), "debounce", key), "d", 0, 1))
        return milliseconds(self.debounce.quiet, "debounce")


def group_line(group: str) -> str:
    """Return the name of a group's limit and line."""
    return _name("g", "", "group", group)


def window_of(lane: str) -> str:
    """Return the name of the window of groups that a lane belongs to."""
    return WINDOW + ",".join(sorted(lane_tags(lane)))


def group_of(record: bytes | None) -> str:
    """Return the line of the group of a message, from what is kept of it (flow.lua); "" = it has none."""
    packed = (record or b"").partition(b"\n")[2]
    with contextlib.suppress(msgspec.MsgspecError):
        return next((str(limit[1]) for limit in _unpack(packed) if limit[0] == "g"), "")
    return ""


def held_limits(record: bytes) -> list[str]:
    """Return the names of the limits that a message has a permit of, from what is kept of it (flow.lua).

    Args:
        record: Its place, a line, and its packed limits; what is not readable has none.
    """
    place, _, packed = record.partition(b"\n")
    if not place:
        return []
    try:
        limits = _unpack(packed)
    except msgspec.MsgspecError:
        return []
    kinds = "k" if place == b"+" else "kcgv" if place.endswith(b"!") else "kcgvtw"
    return [str(limit[1]) for limit in limits if limit[0] in kinds]


NO_FLOW = Flow()
FLOW_OPTIONS = frozenset({"rate", "concurrency", "key", "group", "unique", "debounce"})


def _rate(rate: Rate, owner: str, key: object) -> tuple[Any, ...]:
    if rate.window:
        return ("w", _name("w", owner, "rate", key), rate.count, rate.period_us)
    burst = rate.count if rate.burst is None else rate.burst
    return ("t", _name("t", owner, "rate", key), rate.period_us / rate.count, burst)


def _owners(task: str, limits: Sequence[Limit | Rate]) -> list[str]:
    """Return whose each limit is: its name's, or the task's, with a number from the second one of a task on."""
    owners, unnamed = [], 0
    for limit in limits:
        # The percent sign of a name is written otherwise.
        owner = _escaped(limit.name or task) + (f"%n{unnamed}" if limit.name is None and unnamed else "")
        unnamed += limit.name is None
        owners.append(owner)
    return owners


def _escaped(owner: str) -> str:
    # A colon of the owner's is written otherwise, or the key "b:c" of "a" were the key "c" of "a:b".
    return owner.replace("%", "%25").replace(":", "%3a")


def _name(kind: str, owner: str, option: str, key: object) -> str:
    """Return the name of a limit in Redis: printable, and short however long the key is."""
    if key is not None and not isinstance(key, (str, int, float, bytes)) and type(key).__str__ is object.__str__:
        raise ConfigError(f"{option}: {key!r} has no text of its own to be a key by; return a text or a number")
    text = f"{kind}:{owner}" if key is None else f"{kind}:{owner}:{key}" if owner else f"{kind}:{key}"
    if len(text) <= _LONGEST and text.isprintable() and not _DIGESTED.search(text):
        return text
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST]) + "#" + digest


L = TypeVar("L")


def _several(option: str, value: object, kind: type[L]) -> tuple[L, ...]:
    if value is None:
        return ()
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(one, kind) for one in found):
        example = "Rate('100/m')" if kind is Rate else "Limit(5)"
        raise ConfigError(f"{option}={value!r}: give a {kind.__name__}, such as {example}, a list of them, or None")
    named = [(one.name, one.key) for one in found if one.name is not None]
    if twice := next((each for each in named if named.count(each) > 1), None):
        raise ConfigError(f"{option}: two of them are called {twice[0]!r}, and would be one; name each otherwise")
    return found


def _unique(value: object) -> Unique | None:
    if value is None or value is False:
        return None
    if value is True:
        return Unique()
    if isinstance(value, Unique):
        return value
    if isinstance(value, (str, int)) or callable(value):
        return Unique(value)
    raise ConfigError(f"unique={value!r}: give a Unique, a key, a function of the arguments, or True for all arguments")


def _debounce(value: object) -> Debounce | None:
    if value is None or isinstance(value, Debounce):
        return value
    if isinstance(value, (int, float, timedelta)):
        return Debounce(value)
    raise ConfigError(f"debounce={value!r}: give a span of time, or a Debounce with a key")
