"""The part of an app that tells events: what happens to tasks, workers, schedules and queues, all of it in one line."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from streamwork.broker.events import BELL_MS, EventQuery, EventReading, read_cursor
from streamwork.broker.resend import ainsist, backoff_s, insist
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ConfigError, StoreUnavailable
from streamwork.guards import refuse_on_loop
from streamwork.history import checked_limit
from streamwork.model.event import TYPES, Event, EventGap
from streamwork.model.instant import past_instant_ms
from streamwork.model.span import Seconds
from streamwork.store.keys import checked_name

if TYPE_CHECKING:
    from streamwork.connection import Connection

_LATE_S = 5.0


class Events:
    """Events for ``for`` and for ``async for``; each loop begins where the question said.

    ``for`` raises UseAsync on an event loop's thread; both raise StoreError where Redis refuses, and, unless they
    follow, where it is away.
    """

    def __init__(self, app: Telling, query: EventQuery, limit: int | None) -> None:
        self._app, self._query, self._limit = app, query, limit

    def _reading(self) -> EventReading:
        return EventReading(self._app.name, self._app.queues, self._query)

    def __iter__(self) -> Iterator[Event | EventGap]:
        refuse_on_loop("events", "aevents")
        return self._pages(self._reading())

    def _pages(self, reading: EventReading) -> Iterator[Event | EventGap]:
        connection, failures, left = self._app.connection, 0, self._limit
        while not reading.is_over and left != 0:
            try:
                found = insist(lambda: connection.ask(reading.page()), connection.config.client.send_timeout_s)
                for one in found:
                    yield one
                    left = left if left is None or isinstance(one, EventGap) else left - 1
                    if left == 0:
                        return
                if reading.is_at_end and not reading.is_over:
                    connection.driver.run(reading.bell(), BELL_MS / 1000 + _LATE_S)
                failures = 0
            except StoreUnavailable:
                if not self._query.is_followed:
                    raise
                failures += 1
                time.sleep(backoff_s(failures))

    async def __aiter__(self) -> AsyncIterator[Event | EventGap]:
        connection, reading, left = self._app.connection, self._reading(), self._limit
        failures, driver, patience_s = 0, None, connection.config.client.send_timeout_s
        try:
            while not reading.is_over and left != 0:
                try:
                    for one in await ainsist(lambda: connection.aask(reading.page()), patience_s):
                        yield one
                        left = left if left is None or isinstance(one, EventGap) else left - 1
                        if left == 0:
                            return
                    if reading.is_at_end and not reading.is_over:
                        driver = driver or connection.another_async_driver(BELL_MS / 1000 + _LATE_S)
                        await driver.run(reading.bell())
                    failures = 0
                except StoreUnavailable:
                    if not self._query.is_followed:
                        raise
                    failures += 1
                    await asyncio.sleep(backoff_s(failures))
        finally:
            if driver is not None:
                await driver.close()


class Telling(ABC):
    """What came of tasks is read from the journals of the queues, the rest from a stream of the namespace."""

    name: str
    connection: Connection

    @property
    @abstractmethod
    def queues(self) -> list[str]:
        """The queues that this app uses."""

    def events(
        self, *, since: datetime | Seconds | str | None = None, types: Iterable[str] = (), queues: Iterable[str] = (),
        limit: int | None = None, follow: bool = True,
    ) -> Events:  # fmt: skip
        """Return what happens, for ``for`` and ``async for``: `Event`s, and `EventGap`s where some are not kept.

        Within a queue they come in order, those of several by time. Behind a cursor nothing is told twice or left out,
        also over a restart of Redis.

        Args:
            since: The cursor of an event; or a datetime, or seconds or a timedelta before now; None = from now on, or,
                without `follow`, all that is kept.
            types: Globs such as ``task.*`` or ``worker.died``; none = all.
            queues: Only what is of these; none = all.
            limit: Events at most; None = all.
            follow: Goes on with what comes, without an end.

        Raises:
            ConfigError: A value is wrong.
        """
        globs = (types,) if isinstance(types, str) else tuple(types)
        names = (queues,) if isinstance(queues, str) else tuple(queues)
        for glob in globs:
            if not any(fnmatchcase(type_, glob) for type_ in TYPES):
                raise ConfigError(f"types={glob!r} fits no event: there are {', '.join(TYPES)}")
        cursor = read_cursor(since) if isinstance(since, str) else None
        since_ms = None if isinstance(since, str) else past_instant_ms(since, "since", SYSTEM_CLOCK.now_ms())
        only = frozenset(checked_name("queue", name) for name in names)
        return Events(self, EventQuery(since_ms, cursor, globs, only, follow), checked_limit(limit))

    def aevents(
        self, *, since: datetime | Seconds | str | None = None, types: Iterable[str] = (), queues: Iterable[str] = (),
        limit: int | None = None, follow: bool = True,
    ) -> AsyncIterator[Event | EventGap]:  # fmt: skip
        """Return the same for ``async for`` only; see `events`."""
        return aiter(self.events(since=since, types=types, queues=queues, limit=limit, follow=follow))
