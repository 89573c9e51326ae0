"""The daemon's first process: forks the workers, keeps their liveness, replaces them, and ends them in order.

It runs no task and imports no app, so no body can hold its beat up. It stays single-threaded, so that forking is safe.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

import msgspec

from streamwork.broker.resend import backoff_s
from streamwork.config import Config
from streamwork.errors import AppBroken, ConfigError, StoreRejected, StoreUnavailable, StreamworkError
from streamwork.ids import random_id
from streamwork.worker.child import EXIT_APP, EXIT_OK, EXIT_SPOOLED, FindApp, become_child
from streamwork.worker.departure import kill_unheard, see_off
from streamwork.worker.homes import Address, Home, Homes
from streamwork.worker.pace import Pace
from streamwork.worker.replica import Replica
from streamwork.worker.watch import Watchdog, require_watchfiles, until_idle, watch_files

logger = logging.getLogger(__name__)

# What shells use for a program that Ctrl-C ended.
EXIT_INTERRUPTED = 130
# How often a worker that waits for Redis says so again.
_REMIND_S = 30.0
_LAST_WORDS_S = 0.5


class Supervisor:
    """Runs worker processes until told to end.

    Args:
        find_app: Imports the app; called in the children only. The settings of the app it returns are the ones that
            count, and they tell the supervisor its Redis.
        config: Settings until a child has said so: log level and number of processes.
        burst: End when there is nothing left to do; a Redis that is away is waited for no longer than an enqueue does.
        reload: Replace the processes when a Python file below the current folder changes.
    """

    def __init__(self, find_app: FindApp, config: Config, *, burst: bool = False, reload: bool = False) -> None:
        self.config = config
        self.name = f"{socket.gethostname()}-{os.getpid()}-{random_id(24)}"
        self.replicas: list[Replica] = []
        self.homes = Homes(self.name)
        self._find_app = find_app
        self._burst = burst
        self._reload = reload
        self._stops = 0
        self._leaving = 0
        self._interrupted = self._spooled = self._announced = False
        self._failure: StreamworkError | None = None
        self._told = ""
        self._pace = Pace()
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self) -> int:
        """Run to the end.

        Returns:
            The exit status: 0; 3 where outcomes were spooled because Redis was away; 130 after SIGINT.

        Raises:
            ConfigError: The app cannot be used.
            StoreError: Redis refuses for good.
        """
        if self._reload:
            require_watchfiles()
        gc.collect()
        gc.freeze()  # children share these pages as long as nobody's collector touches them
        return asyncio.run(self._main())

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        # The default resolver starts a thread, and a fork beside a thread may inherit a held lock.
        loop.getaddrinfo = _resolve_here  # type: ignore[method-assign]
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(signal.SIGINT, self._on_interrupt)
        self._fill_up()
        self._start(Watchdog(self.replicas, lambda: self.homes.is_beating).run())
        if self._reload:
            self._start(watch_files(self.recycle))
        if self._burst:
            self._start(self._end_when_idle())
        await self._done.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.homes.close()
        if self._failure is not None:
            raise self._failure
        return EXIT_SPOOLED if self._spooled else EXIT_INTERRUPTED if self._interrupted else EXIT_OK

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_end)

    def _on_task_end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a duty of the supervisor failed", exc_info=task.exception())

    def _fill_up(self) -> None:
        while len(self.replicas) < self.config.worker.processes and not self._stops:
            self._spawn()

    def _spawn(self) -> None:
        taken = {replica.number for replica in self.replicas}
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        replica = Replica(self.config, self.name, number)
        sys.stdout.flush()  # or a child would print it again
        pid = os.fork()
        if pid == 0:
            for other in self.replicas:
                other.forget()  # or the siblings would not see the end of file when the supervisor dies
            become_child(self._find_app, replica.child_side(), replica.table)
        replica.forked(pid)
        self.replicas.append(replica)
        self._start(self._attend(replica))

    async def _attend(self, replica: Replica) -> None:
        """Go through one process's life: hello, registration, work, death."""
        ended = asyncio.ensure_future(replica.wait())
        await replica.channel.open()
        listening = asyncio.ensure_future(self._listen(replica))
        await ended
        # What it said last is in the socket. The end of file may never come: a process that a body forked has it open.
        await asyncio.wait({listening}, timeout=_LAST_WORDS_S)
        listening.cancel()
        await self._after_death(replica, ended.result())

    async def _listen(self, replica: Replica) -> None:
        while (message := await replica.channel.receive()) is not None:
            kind, values = message[0], message[1:]
            if kind == "hello":
                namespace, queues, settings = values
                self._start(
                    self._welcome(replica, Address(namespace, tuple(queues), msgspec.convert(settings, Config)))
                )
            elif kind == "ready":
                self._on_ready(replica)
            elif kind == "stats":
                replica.taken, replica.ended, replica.in_hand, replica.is_idle = values
            elif kind == "failed":
                is_store, text = values
                replica.failure = StoreRejected(text) if is_store else AppBroken(text)
            elif kind == "bye":
                replica.said_bye = True
                self._spooled = self._spooled or values[0]

    async def _welcome(self, replica: Replica, address: Address) -> None:
        replica.introduced(list(address.queues), address.config)
        self.config = address.config
        self._fill_up()  # the app's own settings may ask for more processes than the environment did, or for fewer
        if replica.number >= self.config.worker.processes:
            replica.channel.send("stop")
            return
        try:
            replica.home = await self._patiently(replica, address)
        except StreamworkError as error:  # a wrong password, or a URL that is none
            self._fail(error)
        if replica.home is None or self._stops:
            replica.channel.send("stop")
            return
        replica.channel.send("go", replica.name, replica.home.endpoint.url)
        replica.home.keeper.tell(replica)

    async def _patiently(self, replica: Replica, address: Address) -> Home | None:
        """Find the replica's home and register it there, however long Redis is away; None when told to stop."""
        loop = asyncio.get_running_loop()
        tries, began_s, said_s = 0, loop.time(), -_REMIND_S
        while not self._stops and not replica.is_dead:
            try:
                home = await self.homes.of(address)
                await self._add(home, replica)
            except StoreUnavailable as error:
                now_s = loop.time()
                if self._burst and now_s - began_s > address.config.client.send_timeout_s:
                    raise
                if now_s - said_s >= _REMIND_S:
                    logger.warning("waiting for Redis", extra={"error": str(error)})
                    said_s = now_s
                tries += 1
                await asyncio.sleep(min(1.0, backoff_s(tries)))
            else:
                return home
        return None

    def _on_ready(self, replica: Replica) -> None:
        replica.is_ready = True
        worker = replica.config.worker
        logger.debug("process ready", extra={"consumer": replica.name, "pid": replica.pid})
        if self._announced or replica.home is None or not all(other.is_ready for other in self.replicas):
            return
        self._announced = True
        home = replica.home
        logger.info("worker ready", extra={
            "app": home.address.namespace, "redis": f"{home.server} at {home.endpoint.where}", "queues": replica.queues,
            "tags": list(worker.tags), "processes": len(self.replicas), "slots": worker.slots, "worker": self.name,
        })  # fmt: skip

    async def _add(self, home: Home, replica: Replica) -> None:
        replica.on_fenced = lambda: self._start(self._rename(home, replica))
        await home.keeper.add(replica, replica.registration())
        if replica.is_dead:  # it died meanwhile, and nobody else would take it off the list
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

    async def _after_death(self, replica: Replica, status: int) -> None:
        self.replicas.remove(replica)
        self._leaving += 1
        try:
            await see_off(replica, status, self.name)
            await self.homes.leave(other.home for other in self.replicas)
        finally:
            self._leaving -= 1
        hopeless = status == EXIT_APP and self._is_hopeless(replica)
        if not self._stops:
            worked = status == EXIT_OK and replica.taken > 0
            await self._pace.wait(replica.age_s, worked=worked, hopeless=hopeless)
            self._fill_up()
        self._end_if_over()

    def _is_hopeless(self, replica: Replica) -> bool:
        failure = replica.failure or ConfigError("the app cannot be used")
        if self._announced and replica.home is not None:
            # This worker has run: what its app needs to start is away, and may come back.
            logger.error("a process could not start and is replaced", extra={"error": str(failure)})
            return False
        self._fail(failure)
        return True

    def _end_if_over(self) -> None:
        if self._stops and not self.replicas and not self._leaving:
            self._done.set()

    def _fail(self, failure: StreamworkError) -> None:
        if self._reload:
            if str(failure) != self._told:  # once, however many processes find it
                logger.error("waiting for a change", extra={"error": str(failure)})
            self._told = str(failure)
            return
        self._failure = self._failure or failure
        if not self._stops:
            self._on_stop()

    def _on_interrupt(self) -> None:
        self._interrupted = True
        self._on_stop()

    def _on_stop(self) -> None:
        self._stops += 1
        self._pace.hurry()
        if self.replicas and self._failure is None:
            what = "draining" if self._stops == 1 else "stopping now"
            logger.info(what, extra={"running": sum(len(replica.table.started()) for replica in self.replicas)})
        for replica in self.replicas:
            replica.channel.send("drain" if self._stops == 1 else "stop")
        if self._stops == 2:
            self._start(kill_unheard(self.replicas))
        self._end_if_over()

    def recycle(self) -> None:
        """Drain every process; each is replaced as it ends."""
        self._pace.hurry()
        for replica in self.replicas:
            replica.channel.send("drain")

    async def _end_when_idle(self) -> None:
        await until_idle(self.replicas, lambda: self.homes.is_beating)
        if not self._stops:
            self._on_stop()


async def _resolve_here(host: Any, port: Any, **options: Any) -> Any:
    return socket.getaddrinfo(host, port, **options)
