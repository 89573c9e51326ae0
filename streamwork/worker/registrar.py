"""Put processes on the list of the living: at the start, however long Redis is away, and anew once they are fenced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from streamwork.broker.resend import backoff_s
from streamwork.errors import StoreUnavailable
from streamwork.worker.homes import Address, Home, Homes
from streamwork.worker.replica import Replica

logger = logging.getLogger(__name__)

# How often a worker that waits for Redis says so again.
_REMIND_S = 30.0


class Registrar:
    """Registers the processes of one supervisor.

    Args:
        homes: Where they live.
        start: Runs a coroutine in the background.
        burst: A Redis that is away is waited for no longer than an enqueue does.
    """

    def __init__(self, homes: Homes, start: Callable[[Coroutine[Any, Any, None]], None], *, burst: bool) -> None:
        self._homes = homes
        self._start = start
        self._burst = burst
        self._has_registered = False

    async def register(self, replica: Replica, address: Address, is_ending: Callable[[], bool]) -> bool:
        """Find the home of a process and register it there; False when it died, or is told to end, before that.

        Raises:
            StoreUnavailable: Redis is away for too long, or has been a read-only replica since the worker's start.
            StoreError: It refuses for good.
        """
        loop = asyncio.get_running_loop()
        tries, began_s, said_s = 0, loop.time(), -_REMIND_S
        while not (is_ending() or replica.is_dead or replica.is_leaving):
            try:
                replica.home = await self._homes.of(address)
                await self._add(replica.home, replica)
            except StoreUnavailable as error:
                now_s = loop.time()
                if now_s - began_s > address.config.client.send_timeout_s and self._is_hopeless(error):
                    raise
                if now_s - said_s >= _REMIND_S:
                    logger.warning("waiting for Redis", extra={"error": str(error)})
                    said_s = now_s
                tries += 1
                await asyncio.sleep(min(1.0, backoff_s(tries)))
            else:
                self._has_registered = True
                return True
        return False

    def _is_hopeless(self, error: StoreUnavailable) -> bool:
        # A failover makes a master of a replica within seconds; one that is none from the start is a wrong URL.
        return self._burst or ("the URL of the master" in str(error) and not self._has_registered)

    async def _add(self, home: Home, replica: Replica) -> None:
        replica.on_fenced = lambda: self._start(self._rename(home, replica))
        try:
            await home.keeper.add(replica, replica.registration())
        finally:
            if replica.is_dead:  # it died meanwhile: it was taken off the list before it was on it
                await home.hand_over(replica, "leave", "", {})

    async def _rename(self, home: Home, replica: Replica) -> None:
        replica.channel.send("fenced")
        replica.new_name()
        while not replica.is_dead:
            try:
                await self._add(home, replica)
            except StoreUnavailable:
                await asyncio.sleep(0.5)
            else:
                replica.channel.send("rename", replica.name)
                home.keeper.tell(replica)
                return
