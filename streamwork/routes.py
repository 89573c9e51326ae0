"""Routes: rules, kept as data, that say for a call where it goes before it is sent.

They are looked at in the order of their declaration, where the call is made, and the first that fits counts. What the
caller said with `options(queue=, tags=, priority=)` stays as it was said; what only the task's declaration says does
not.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec

from streamwork.errors import ConfigError, RouteError
from streamwork.model.lane import HIGHEST_PRIORITY, LOWEST_PRIORITY, lane_name
from streamwork.wire.signature import TaskSignature


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One rule; conditions that are not given are met.

    Attributes:
        name: What explanations and errors call it.
        task: Glob that the task's name must be like, such as ``shop.mail.*``.
        match: Regular expression to be found in the task's name; None = any.
        where: Argument to the regular expression to be found in its text; ``*`` = in any text among the arguments.
        when: Asked with the arguments it names, as the task would get them; None = not asked.
        queue: Where it goes; None = as declared.
        tags: What a worker must offer, instead of the declared ones; None = as declared.
        priority: 0 (last) – 9 (first), instead of the declared one; None = as declared.
        boost: Added to the declared priority; below 0 counts as 0, above 9 as 9.
    """

    name: str
    task: str = "*"
    match: str | None = None
    where: dict[str, str] = {}
    when: Callable[..., object] | None = None
    queue: str | None = None
    tags: tuple[str, ...] | None = None
    priority: int | None = None
    boost: int = 0

    def facts(self) -> dict[str, Any]:
        """Return it as plain data, the predicate by its name."""
        found = {name: getattr(self, name) for name in self.__struct_fields__}
        return {**found, "when": None if self.when is None else getattr(self.when, "__qualname__", repr(self.when))}


class Asked(NamedTuple):
    """A call that is about to be made, as far as routes look at it.

    Attributes:
        task: Name of the task.
        queue, tags, priority: Its options before any route.
        said: Which of those the caller said: routes leave them alone.
        signature: Of the task; None = it is not declared here, so its arguments have no names.
        packed: The encoded arguments.
    """

    task: str
    queue: str
    tags: frozenset[str]
    priority: int
    said: frozenset[str]
    signature: TaskSignature | None
    packed: tuple[bytes, bytes | None]

    def arguments(self) -> dict[str, Any] | None:
        """Return the arguments by name, typed and with defaults, as the task would get them."""
        if self.signature is None:
            return None
        args, kwargs = self.signature.decode(*self.packed)
        shape = self.signature.shape
        bound = shape.bind(*args, **kwargs)
        bound.apply_defaults()
        found: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            found |= value if shape.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        return found


class Tried(NamedTuple):
    """What one route said of a call: ``matched``, ``not matched`` or ``not asked``, and why."""

    route: Route
    outcome: str
    why: str


class Placed(NamedTuple):
    """Where a call goes, and which routes said what.

    Attributes:
        route: Name of the one that matched; None = no route did.
        kept: What it would have changed, and the caller had said.
    """

    queue: str
    tags: frozenset[str]
    priority: int
    route: str | None = None
    kept: tuple[str, ...] = ()
    tried: tuple[Tried, ...] = ()


class Routes:
    """The rules of one app, in the order of their declaration; false where there is none."""

    def __init__(self) -> None:
        self._rules: list[Route] = []

    def __len__(self) -> int:
        return len(self._rules)

    @property
    def rules(self) -> tuple[Route, ...]:
        """The rules."""
        return tuple(self._rules)

    def add(self, route: Route) -> Route:
        """Take up a rule; raises ConfigError where its name is taken."""
        self._check_name(route.name, None)
        self._rules.append(route)
        return route

    def replace(self, old: Route, new: Route) -> None:
        """Put one rule in the place of another; raises ConfigError where its name is taken."""
        self._check_name(new.name, old)
        self._rules[self._rules.index(old)] = new

    def _check_name(self, name: str, but: Route | None) -> None:
        if any(other.name == name and other is not but for other in self._rules):
            raise ConfigError(f"two routes are named {name!r}: give one of them another name=")

    def place(self, asked: Asked) -> tuple[str, str]:
        """Return queue and lane of a call; raises RouteError where a predicate does."""
        placed = self.explain(asked, is_brief=True)
        return placed.queue, lane_name(placed.priority, placed.tags)

    def explain(self, asked: Asked, *, is_brief: bool = False) -> Placed:
        """Say where a call goes and why; `is_brief` stops at the first rule that fits."""
        placed: Placed | None = None
        tried: list[Tried] = []
        known: list[dict[str, Any] | None] = []
        for route in self._rules:
            if placed is not None:
                tried.append(Tried(route, "not asked", f"{placed.route} came first"))
                continue
            why = _misfit(route, asked, known)
            tried.append(Tried(route, "not matched" if why else "matched", why))
            if not why:
                placed = _placed(route, asked)
                if is_brief:
                    return placed
        placed = placed or Placed(asked.queue, asked.tags, asked.priority)
        return placed._replace(tried=tuple(tried))


def _misfit(route: Route, asked: Asked, known: list[dict[str, Any] | None]) -> str:
    """Say which condition of a route a call does not meet; empty where it meets all."""
    if not fnmatchcase(asked.task, route.task):
        return f"the name is not like {route.task}"
    if route.match is not None and not re.search(route.match, asked.task):
        return f"{route.match} is not found in the name"
    if not route.where and route.when is None:
        return ""
    if not known:
        known.append(asked.arguments())
    arguments = known[0]
    if arguments is None:
        return "the task is not declared here, so its arguments have no names"
    for name, pattern in route.where.items():
        if name != "*" and name not in arguments:
            return f"there is no argument {name!r}"
        texts = [each for each in arguments.values() if isinstance(each, str)] if name == "*" else [arguments[name]]
        if not any(re.search(pattern, str(text)) for text in texts):
            return f"{pattern} is not found in {'any text' if name == '*' else name}"
    return "" if route.when is None else _unwanted(route, route.when, arguments)


def _unwanted(route: Route, when: Callable[..., object], arguments: Mapping[str, Any]) -> str:
    parameters = inspect.signature(when).parameters.values()
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    missing = [each.name for each in named if each.default is each.empty and each.name not in arguments]
    if missing:
        return f"its predicate asks for {missing[0]!r}, and there is no such argument"
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
        arguments = {each.name: arguments[each.name] for each in named if each.name in arguments}
    try:
        return "" if when(**arguments) else "its predicate says no"
    except Exception as error:
        raise RouteError(
            f"the predicate of route {route.name!r} raises {type(error).__name__}: {error}; nothing was sent"
        ) from error


def _placed(route: Route, asked: Asked) -> Placed:
    wanted: dict[str, Any] = {}
    if route.queue is not None:
        wanted["queue"] = route.queue
    if route.tags is not None:
        wanted["tags"] = frozenset(route.tags)
    if route.priority is not None or route.boost:
        base = asked.priority if route.priority is None else route.priority
        wanted["priority"] = min(HIGHEST_PRIORITY, max(LOWEST_PRIORITY, base + route.boost))
    placed = Placed(asked.queue, asked.tags, asked.priority, route.name, tuple(sorted(asked.said & wanted.keys())))
    return placed._replace(**{name: value for name, value in wanted.items() if name not in asked.said})
