"""Hear what concerns every worker of a queue, within milliseconds (rule 38)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from streamwork.broker.inspect import order
from streamwork.broker.resend import backoff_s
from streamwork.errors import StoreError
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys

logger = logging.getLogger(__name__)


class Control:
    """Hear the signals of one queue: new lanes, returned entries, earlier due times, cancellations, runs to end.

    Args:
        driver: A connection of its own, since its reads block.
        heard: Called with (event, value) for each signal.
        refresh: Awaited at each (re)connection, and when too many signals came at once, since some were missed.
    """

    BLOCK_MS = 10_000
    # Whoever gets this many is behind, and what is trimmed (1,000 stay) may have been ahead of it.
    AT_ONCE = 100

    def __init__(
        self, driver: AsyncDriver, keys: QueueKeys, heard: Callable[[str, str], None], refresh: Callable[[], Any]
    ) -> None:
        self._driver = driver
        self._keys = keys
        self._heard = heard
        self._refresh = refresh

    async def run(self) -> None:
        """Listen until cancelled."""
        failures = 0
        while True:
            try:
                await self._listen()
            except StoreError:
                failures += 1
                await asyncio.sleep(backoff_s(min(failures, 6)))
            else:
                failures = 0

    async def _listen(self) -> None:
        newest: list[Any] = await self._driver.run(plain("XREVRANGE", self._keys.control, "+", "-", "COUNT", 1))
        cursor: bytes = newest[0][0] if newest else b"0-0"
        await self._refresh()
        server = self._driver.run_id
        while self._driver.run_id == server:
            reply = await self._driver.run(
                plain("XREAD", "COUNT", self.AT_ONCE, "BLOCK", self.BLOCK_MS, "STREAMS", self._keys.control, cursor)
            )
            for _, entries in reply or ():
                if len(entries) == self.AT_ONCE and await self._has_missed(cursor):
                    return  # to look at all there is, and go on from there
                for entry, fields in entries:
                    cursor = entry
                    try:
                        self._heard(fields[1].decode(), fields[3].decode())
                    except (IndexError, UnicodeDecodeError):
                        facts = {"queue": self._keys.queue, "entry": entry.decode()}
                        logger.warning("a signal cannot be read", extra=facts)

    async def _has_missed(self, cursor: bytes) -> bool:
        oldest: list[Any] = await self._driver.run(plain("XRANGE", self._keys.control, "-", "+", "COUNT", 1))
        return not oldest or order(oldest[0][0]) > order(cursor)
