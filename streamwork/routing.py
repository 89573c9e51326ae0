"""Declaring routes: `app.route`, and what a wrong rule is told."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from streamwork.errors import ConfigError
from streamwork.model.lane import DEFAULT_PRIORITY, lane_name
from streamwork.options import tags_of
from streamwork.routes import Route, Routes
from streamwork.store.keys import checked_name

F = TypeVar("F", bound=Callable[..., object])


def _check(route: Route) -> None:
    try:
        if not isinstance(route.name, str) or not route.name:
            raise ConfigError(f"name={route.name!r}: give a text")
        if not isinstance(route.task, str) or not route.task:
            raise ConfigError(f"task={route.task!r}: give a glob of task names, such as 'shop.mail.*'")
        if not isinstance(route.where, dict):
            raise ConfigError(f"where={route.where!r}: give a dict of argument to regular expression")
        for field, pattern in (
            ("match", route.match),
            *((f"where[{name!r}]", each) for name, each in route.where.items()),
        ):
            _check_pattern(field, pattern)
        if route.when is not None and not callable(route.when):
            raise ConfigError(f"when={route.when!r}: give a function of the task's arguments")
        if inspect.iscoroutinefunction(route.when):
            raise ConfigError("when: give a plain function; a coroutine is always true")
        if route.queue is not None:
            checked_name("queue", route.queue)
        lane_name(DEFAULT_PRIORITY if route.priority is None else route.priority, route.tags or ())
        if isinstance(route.boost, bool) or not isinstance(route.boost, int) or not -9 <= route.boost <= 9:
            raise ConfigError(f"boost={route.boost!r}: a whole number from -9 to 9")
        if route.priority is not None and route.boost:
            raise ConfigError("priority and boost: give one of them")
        if route.queue is None and route.tags is None and route.priority is None and not route.boost:
            raise ConfigError("it changes nothing: give queue, tags, priority or boost")
    except ConfigError as error:
        raise ConfigError(f"route {route.name!r}: {error}") from None


def _check_pattern(field: str, pattern: str | None) -> None:
    try:
        if pattern is not None:
            re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigError(f"{field}={pattern!r} is no regular expression: {error}") from None


class Declared:
    """What `app.route(...)` returns: the rule is in force, and as a decorator it gives it its predicate.

    Attributes:
        route: The rule.
    """

    def __init__(self, routes: Routes, route: Route, *, is_named: bool) -> None:
        self._routes = routes
        self.route = route
        self._is_named = is_named

    def __call__(self, when: F) -> F:
        """Ask this function, too: it gets the arguments that it names, and answers whether the rule fits."""
        if self.route.when is not None:
            raise ConfigError(f"route {self.route.name!r} has a predicate already")
        name = self.route.name if self._is_named else str(getattr(when, "__name__", self.route.name))
        new = msgspec.structs.replace(self.route, when=when, name=name)
        _check(new)
        self._routes.replace(self.route, new)
        self.route = new
        return when


class Routing:
    """The part of an app that declares routes."""

    def __init__(self) -> None:
        self.rules = Routes()

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes in the order in which they are looked at."""
        return self.rules.rules

    def route(
        self, task: str = "*", /, *, name: str | None = None, match: str | None = None,
        where: dict[str, str] | None = None, when: Callable[..., object] | None = None, queue: str | None = None,
        tags: Iterable[str] | None = None, priority: int | None = None, boost: int = 0,
    ) -> Declared:  # fmt: skip
        r"""Declare a rule of where calls go: the first that fits counts, and what the caller says goes before it.

        ``app.route("shop.mail.*", where={"to": r"@vip\."}, queue="vip", boost=2)``, or as a decorator of a predicate,
        which gets the task's arguments by name: ``@app.route("shop.*", priority=9)`` above ``def big(amount): ...``.

        Args:
            task: Glob that the task's name must be like.
            name: What explanations call it; None = the predicate's name, or ``route-1``, ``route-2``, ….
            match: See `Route`, as for the conditions ``where`` and ``when``.
            where: See `Route`; None = nothing is looked for.
            when: See `Route`.
            queue: See `Route`, as for ``tags``, ``priority`` and ``boost``; at least one of them is given.
            tags: See `Route`.
            priority: See `Route`.
            boost: See `Route`.

        Raises:
            ConfigError: One of them is wrong, or the name is taken; nothing was declared.
        """
        called = f"route-{len(self.rules) + 1}" if name is None else name
        try:
            given = None if tags is None else tuple(sorted(tags_of(tags)))
        except ConfigError as error:
            raise ConfigError(f"route {called!r}: {error}") from None
        made = Route(
            name=called, task=task, match=match, where={} if where is None else where, when=when, queue=queue,
            tags=given, priority=priority, boost=boost,
        )  # fmt: skip
        _check(made)
        return Declared(self.rules, self.rules.add(made), is_named=name is not None)
