"""What one app holds of Redis in this process: drivers, senders and the listener, each made when first needed."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from typing import TYPE_CHECKING

from streamwork.broker.async_sender import AsyncSender
from streamwork.broker.results import Results
from streamwork.broker.sync_sender import SyncSender
from streamwork.config import Config
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.embedded import join_configured
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver

if TYPE_CHECKING:
    from streamwork.store.server import EmbeddedServer

_links: weakref.WeakSet[Links] = weakref.WeakSet()


class Links:
    """Everything of one namespace that holds a socket: it belongs to one process, and is made anew after a fork.

    See rules 2 and 37.
    """

    def __init__(self, namespace: str, config: Config) -> None:
        self.namespace = namespace
        self.config = config
        self._keys: dict[str, QueueKeys] = {}
        self._lock = threading.Lock()
        self._reset()
        _links.add(self)

    def _reset(self) -> None:
        self._endpoint: Endpoint | None = None
        self._embedded: EmbeddedServer | None = None
        self._driver: SyncDriver | None = None
        self._sender: SyncSender | None = None
        self._results: Results | None = None
        self._known_queues: set[str] = set()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncDriver, AsyncSender]] = (
            weakref.WeakKeyDictionary()
        )

    def _forked(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it, and is not here to release it
        self._reset()

    def keys(self, queue: str) -> QueueKeys:
        """Return a queue's keys."""
        keys = self._keys.get(queue)
        if keys is None:
            keys = self._keys[queue] = QueueKeys(self.namespace, queue)
        return keys

    @property
    def endpoint(self) -> Endpoint:
        """Where Redis is; joins the embedded server at first use when no URL is set."""
        if self._endpoint is None:
            with self._lock:
                if self._endpoint is None:
                    self._endpoint = self._found()
        return self._endpoint

    def _found(self) -> Endpoint:
        timeout_s = self.config.client.connect_timeout_s
        if self.config.url:
            return Endpoint(self.config.url, timeout_s)
        share = self._embedded = join_configured(self.config)
        atexit.register(share.close)
        return Endpoint(share.url, timeout_s, share.ensure)

    def another_driver(self) -> SyncDriver:
        """Return a driver of its own, for whoever blocks."""
        return SyncDriver(self.endpoint, ALL_SCRIPTS, self.config.client.deadline_s)

    def another_async_driver(self, deadline_s: float) -> AsyncDriver:
        """Return a driver of its own for the running loop, for whoever blocks; its user closes it."""
        return AsyncDriver(self.endpoint, ALL_SCRIPTS, max(deadline_s, self.config.client.deadline_s))

    @property
    def driver(self) -> SyncDriver:
        """This process's driver for threads."""
        endpoint = self.endpoint
        if self._driver is None:
            with self._lock:
                if self._driver is None:
                    self._driver = SyncDriver(endpoint, ALL_SCRIPTS, self.config.client.deadline_s)
        return self._driver

    @property
    def sender(self) -> SyncSender:
        """This process's sender for threads."""
        driver = self.driver
        if self._sender is None:
            with self._lock:
                if self._sender is None:
                    self._sender = SyncSender(driver, self.another_driver, self.config.client)
        return self._sender

    @property
    def results(self) -> Results:
        """This process's waiting side."""
        if self._results is None:
            with self._lock:
                if self._results is None:
                    self._results = Results(self.another_driver)
        return self._results

    async def _begin_on_loop(self) -> None:
        if self._endpoint is None and self.config.url is None:
            await asyncio.to_thread(lambda: self.endpoint)  # blocks for as long as the embedded server takes to start

    def _loop_side(self) -> tuple[AsyncDriver, AsyncSender]:
        endpoint = self.endpoint
        loop = asyncio.get_running_loop()
        side = self._loops.get(loop)
        if side is None:
            driver = AsyncDriver(endpoint, ALL_SCRIPTS, self.config.client.deadline_s)
            side = self._loops[loop] = (driver, AsyncSender(driver, self.config.client))
        return side

    def close(self) -> None:
        """Close what threads use; the next use makes it anew."""
        for part in (self._results, self._sender, self._driver, self._embedded):
            if part is not None:
                part.close()
        loops = self._loops
        self._reset()
        self._loops = loops

    async def aclose(self) -> None:
        """Close what the running loop uses."""
        side = self._loops.pop(asyncio.get_running_loop(), None)
        if side is not None:
            await side[0].close()


def _after_fork() -> None:
    for links in _links:
        links._forked()  # noqa: SLF001 - its own module; before the child has a second thread that could use it


if hasattr(os, "register_at_fork"):  # where there is no fork, there is nothing to do
    os.register_at_fork(after_in_child=_after_fork)
