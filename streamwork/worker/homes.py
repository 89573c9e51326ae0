"""Where a supervisor's processes live: for each app as they introduce it, its Redis and the keeper there.

A supervisor imports no app, so it learns the namespace, the queues and the settings from what its processes say. After
a reload they may say something else; then there are two homes for as long as the old processes need.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

from streamwork.broker.info import eviction_warning, info, server_name
from streamwork.broker.stats import overview
from streamwork.broker.steps import aask
from streamwork.config import Config
from streamwork.errors import EmbeddedError, StoreError
from streamwork.outage import Outage
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.embedded import join_configured
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import queues
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.server import EmbeddedServer
from streamwork.worker.keeper import Keeper
from streamwork.worker.member import Member

logger = logging.getLogger(__name__)

_TEND_S = 1.0
# A dead worker's work is elsewhere after its life, the grace of who looks first, and one life to spare.
_LIVES = 3


class Address(NamedTuple):
    """What makes a home one: the app's name, the queues read, and all settings."""

    namespace: str
    queues: tuple[str, ...]
    config: Config


class Home:
    """One app's Redis, kept by a supervisor.

    Attributes:
        address: Which app and settings.
        endpoint: Its Redis.
        keeper: Services for its queues.
        server: What answers there, such as ``Redis 7.0.15``.
    """

    def __init__(self, address: Address, endpoint: Endpoint, me: str, outage: Outage) -> None:
        self.address = address
        self.endpoint = endpoint
        self.server = ""
        self.keeper = Keeper(address.namespace, address.config, list(address.queues), self._driver, me, outage)

    def _driver(self, deadline_s: float) -> AsyncDriver:
        return AsyncDriver(self.endpoint, ALL_SCRIPTS, deadline_s)

    async def open(self) -> None:
        """Start the keeper and look at the server; raises StoreError, and nothing is left open then."""
        try:
            await self.keeper.start()
            server, memory = await self.keeper.driver.run_all([info("server"), info("memory")])
        except StoreError:
            await self.keeper.stop()
            raise
        self.server = server_name(server)
        warning = eviction_warning(memory)
        if warning:
            logger.warning(warning, extra={"redis": self.endpoint.where})
        await self._announce()

    async def _announce(self) -> None:
        # Only views of all queues read this set; a Redis that is full refuses to grow it, and work goes on.
        try:
            await self.keeper.driver.run(plain("SADD", queues(self.address.namespace), *self.address.queues))
        except StoreError as error:
            logger.warning("queues are not listed", extra={"error": str(error)})

    async def hand_over(
        self, member: Member, mode: str, evidence: str, started: dict[str, list[tuple[str, bytes]]]
    ) -> None:
        """Mark what a consumer that ended still owns; see `Keeper.remove`. Where Redis is away the reaper will."""
        try:
            marked = await self.keeper.remove(member, mode=mode, evidence=evidence, started=started)
        except StoreError as error:
            logger.warning("could not hand over", extra={"consumer": member.name, "error": str(error)})
            return
        if marked:
            logger.warning(
                "entries handed over",
                extra={"consumer": member.name, "entries": marked, "how": evidence.partition("\n")[0]},
            )


class Homes:
    """The homes of one supervisor; there is one unless a reload changed the app's settings.

    Args:
        me: Name of the supervisor.
        outage: Told when Redis is away.
    """

    def __init__(self, me: str, outage: Outage) -> None:
        self._me = me
        self._outage = outage
        self._homes: dict[Address, Home] = {}
        self._opening = asyncio.Lock()
        self._embedded: dict[str, EmbeddedServer] = {}
        self._left: dict[tuple[object, str], tuple[int, int, int]] = {}
        self._left_since_s = 0.0

    def all(self) -> list[Home]:
        """Return the homes."""
        return list(self._homes.values())

    async def of(self, address: Address) -> Home:
        """Return the home of an app, opened at its first use.

        Raises:
            StoreError: Redis is away or refuses; try again or give up.
        """
        async with self._opening:
            home = self._homes.get(address)
            if home is None:
                home = Home(address, self._endpoint(address.config), self._me, self._outage)
                await home.open()
                self._homes[address] = home
        return home

    def _endpoint(self, config: Config) -> Endpoint:
        url = config.url
        if url is None:
            share = self._embedded.get(config.folder)
            if share is None:
                share = self._embedded[config.folder] = join_configured(config)
            # Also when it is known: its users are gone with a kill -9 of its guardian, and this starts it again.
            url = share.ensure()
        return Endpoint(url, config.client.connect_timeout_s)

    async def tend(self) -> None:
        """Start embedded servers again whose guardian was killed, until cancelled; blocks while one starts."""
        is_told = False
        while True:
            await asyncio.sleep(_TEND_S)
            if self.is_beating and not any(home.keeper.is_late for home in self._homes.values()):
                is_told = False
                continue
            for share in self._embedded.values():
                try:
                    share.heal()
                except EmbeddedError as error:
                    if not is_told:
                        logger.error("the embedded Redis cannot be started again", extra={"error": str(error)})  # noqa: TRY400
                    is_told = True

    @property
    def is_beating(self) -> bool:
        """Whether Redis answered every home's last beat in time; False before the first."""
        return bool(self._homes) and all(home.keeper.is_beating for home in self._homes.values())

    async def may_end(self) -> bool:
        """Return whether a burst that is idle may end.

        Not while any message waits for a limit, in which an end makes room, or lies with a dead worker, from whom it is
        taken after a while. Where none of that has changed for three lives of a worker it is for others, or for later.
        """
        left: dict[tuple[object, str], tuple[int, int, int]] = {}
        patience_s = 0.0
        for address, home in self._homes.items():
            try:
                seen = await aask(home.keeper.driver, overview(address.namespace, address.queues))
            except StoreError:
                return False
            patience_s = max(patience_s, _LIVES * address.config.liveness.ttl_s)
            alive = {worker.consumer for worker in seen.workers if worker.alive}
            for queue in seen.queues:
                with_dead = sum(count for name, count in queue.in_hand.items() if name not in alive)
                if with_dead or queue.parked:
                    left[address, queue.queue] = (with_dead, queue.parked, queue.waiting)
        now_s = asyncio.get_running_loop().time()
        if left != self._left:
            self._left, self._left_since_s = left, now_s
        return not left or now_s - self._left_since_s > patience_s

    async def tell_left(self) -> None:
        """Log what a burst leaves: for workers with other tags, or for its time."""
        for home in self._homes.values():
            try:
                seen = await aask(home.keeper.driver, overview(home.address.namespace, home.address.queues))
            except StoreError:
                continue
            for queue in seen.queues:
                if queue.waiting or queue.scheduled:
                    facts = {"queue": queue.queue, "waiting": queue.waiting, "scheduled": queue.scheduled}
                    logger.info("left for other workers, or for later", extra=facts)

    async def leave(self, used: Iterable[Home | None]) -> None:
        """Close the homes that are not among these, but for the newest, which the next process will use."""
        for address, home in list(self._homes.items())[:-1]:
            if home not in used and address in self._homes:
                del self._homes[address]
                await home.keeper.stop()

    async def close(self) -> None:
        """Stop all services and give the shares in embedded servers up."""
        for home in self._homes.values():
            await home.keeper.stop()
        for share in self._embedded.values():
            share.close()


async def resolve_here(host: Any, port: Any, **options: Any) -> Any:
    """Resolve a name for a loop of a process that forks: the default starts a thread, and a fork may inherit a lock."""
    return socket.getaddrinfo(host, port, **options)
