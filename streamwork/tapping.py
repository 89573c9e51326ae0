"""The part of an app that reads along: what comes onto the lanes of a queue, without taking it from its workers."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from streamwork.broker.history import check_queue
from streamwork.broker.resend import ainsist, backoff_s, insist
from streamwork.broker.tap import BELL_MS, MOST, TapReading, remove
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import StoreUnavailable
from streamwork.guards import refuse_on_loop
from streamwork.history import checked_limit
from streamwork.model.instant import past_instant_ms
from streamwork.model.span import Seconds
from streamwork.model.tap import TapGap, TapMessage
from streamwork.store.keys import checked_name

if TYPE_CHECKING:
    from streamwork.connection import Connection

# A connection is given up when the answer to a wait of `BELL_MS` is this late.
_LATE_S = 5.0


class Tapping(ABC):
    """A tap is a second consumer group on each lane: nothing that it does or leaves undone reaches the workers."""

    connection: Connection

    @property
    @abstractmethod
    def queues(self) -> list[str]:
        """The queues that this app uses."""

    def tap(
        self, queue: str = "default", *, group: str, since: datetime | Seconds | None = None, limit: int | None = None
    ) -> Iterator[TapMessage | TapGap]:
        """Return what comes onto the lanes of a queue from now on, also over a restart of Redis, without an end.

        Each message comes to one of those who read under one `group`, once at most: what was handed out when a program
        or a connection ends is not told again. A retry comes onto its lane anew, with another `attempt`. A group that
        is there goes on where it stood; one that nobody reads for a day is removed. What the retention took before it
        was read is told as a `TapGap`, with the number of messages. Within a lane all come in order, the lanes beside
        each other.

        Args:
            queue: The queue.
            group: Name of the tap.
            since: From when on a new group reads, as far as that is kept: a datetime, or seconds or a timedelta before
                now; None = from now on.
            limit: Messages at most; None = without an end.

        Raises:
            ConfigError: A value is wrong; nothing was read.
            QueueNotFound: Nothing was ever sent to or read from this queue.
            StoreError: Redis refuses.
            UseAsync: Called on an event loop's thread.
        """
        refuse_on_loop("tap", "atap")
        reading, most = self._tapping(queue, group, since), checked_limit(limit)
        insist(lambda: self.connection.ask(check_queue(reading.keys, self.queues)), self._waits_s)
        insist(lambda: self.connection.ask(reading.join()), self._waits_s)
        return self._heard(reading, most)

    def atap(
        self, queue: str = "default", *, group: str, since: datetime | Seconds | None = None, limit: int | None = None
    ) -> AsyncIterator[TapMessage | TapGap]:
        """Return the same for ``async for``; see `tap`. It begins, and what Redis says is raised, at the first step."""
        return self._aheard(self._tapping(queue, group, since), checked_limit(limit))

    def untap(self, queue: str = "default", *, group: str) -> bool:
        """Remove a tap at once, whoever reads under it; False where there was none.

        Raises:
            ConfigError: A name is wrong.
            StoreError: Redis is away or refuses.
            UseAsync: Called on an event loop's thread.
        """
        refuse_on_loop("untap", "auntap")
        keys, name = self.connection.keys(checked_name("queue", queue)), checked_name("group", group)
        return insist(lambda: self.connection.ask(remove(keys, name)), self._waits_s)

    async def auntap(self, queue: str = "default", *, group: str) -> bool:
        """Remove a tap at once; see `untap`."""
        keys, name = self.connection.keys(checked_name("queue", queue)), checked_name("group", group)
        return await ainsist(lambda: self.connection.aask(remove(keys, name)), self._waits_s)

    def _heard(self, reading: TapReading, left: int | None) -> Iterator[TapMessage | TapGap]:
        failures = 0
        while left is None or left > 0:
            try:
                found = self.connection.ask(reading.page(MOST if left is None else min(MOST, left)))
                left = None if left is None else left - sum(isinstance(one, TapMessage) for one in found)
                yield from found
                if reading.is_at_end:
                    self.connection.driver.run(reading.bell(), BELL_MS / 1000 + _LATE_S)
                failures = 0
            except StoreUnavailable:
                failures += 1
                time.sleep(backoff_s(failures))

    async def _aheard(self, reading: TapReading, left: int | None) -> AsyncIterator[TapMessage | TapGap]:
        ask, failures, driver = self.connection.aask, 0, None
        await ainsist(lambda: ask(check_queue(reading.keys, self.queues)), self._waits_s)
        try:
            while left is None or left > 0:
                try:
                    found = await ask(reading.page(MOST if left is None else min(MOST, left)))
                    left = None if left is None else left - sum(isinstance(one, TapMessage) for one in found)
                    for one in found:
                        yield one
                    if reading.is_at_end:
                        # A wait of its own would hold up whatever else the loop asks for.
                        driver = driver or self.connection.another_async_driver(BELL_MS / 1000 + _LATE_S)
                        await driver.run(reading.bell())
                    failures = 0
                except StoreUnavailable:
                    failures += 1
                    await asyncio.sleep(backoff_s(failures))
        finally:
            if driver is not None:
                await driver.close()

    @property
    def _waits_s(self) -> float:
        return self.connection.config.client.send_timeout_s

    def _tapping(self, queue: str, group: str, since: datetime | Seconds | None) -> TapReading:
        keys = self.connection.keys(checked_name("queue", queue))
        since_ms = past_instant_ms(since, "since", SYSTEM_CLOCK.now_ms())
        return TapReading(keys, checked_name("group", group), since_ms)
