"""The daemon's first process: forks the workers, keeps their liveness, replaces them, and ends them in order.

It runs no task and imports no app, so no body can hold its beat up. It stays single-threaded, so that forking is safe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import msgspec

from streamwork.config import Config
from streamwork.errors import AppBroken, StoreUnavailable, StreamworkError
from streamwork.ids import random_id
from streamwork.outage import Outage
from streamwork.worker.child import EXIT_OK, EXIT_SPOOLED, FindApp
from streamwork.worker.crew import Crew, require_files, share_pages
from streamwork.worker.departure import drain, is_in_order, kill_unheard, see_off
from streamwork.worker.homes import Address, Homes, resolve_here
from streamwork.worker.pace import Pace, on_duty
from streamwork.worker.registrar import Registrar
from streamwork.worker.replica import Replica
from streamwork.worker.scraping import Scraping
from streamwork.worker.watch import Watchdog, require_watchfiles, until_idle, watch_files

logger = logging.getLogger(__name__)

# What shells use for a program that Ctrl-C ended.
EXIT_INTERRUPTED = 130
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
        self.crew = Crew(find_app, self.name)
        self.outage = Outage()
        self.homes = Homes(self.name, self.outage)
        self._scraping = Scraping(self.crew, self.homes.all)
        self._registrar = Registrar(self.homes, self._start, burst=burst)
        self._burst = burst
        self._reload = reload
        self._stops = 0
        self._leaving = 0
        self._interrupted = self._spooled = self._announced = self._is_refilling = False
        self._failure: StreamworkError | None = None
        self._told = ""
        self._pace = Pace()
        self._ending, self._done = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self) -> int:
        """Run to the end.

        Returns:
            The exit status: 0; 3 where outcomes were spooled because Redis was away; 130 after SIGINT.

        Raises:
            ConfigError: The app cannot be used, or the system's limits are too low.
            StoreError: Redis refuses for good.
        """
        require_files(self.config.worker.processes)
        if self._reload:
            require_watchfiles()
        share_pages()
        return asyncio.run(self._main())

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        loop.getaddrinfo = resolve_here  # type: ignore[method-assign]
        loop.add_signal_handler(signal.SIGINT, self._on_interrupt)
        # A terminal that is closed sends SIGHUP, unless it was told not to (nohup).
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_stop)
        if self._reload:
            self._start(self._watch_files())
        else:
            self._fill_up()
        watchdog = Watchdog(self.crew.replicas, lambda: self.homes.is_beating, self._recycle)
        self._start(on_duty(watchdog.run))
        self._start(on_duty(self.homes.tend))
        if self._burst:
            self._start(on_duty(self._end_when_idle))
        await self._done.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.homes.close()
        if self._failure is not None:
            raise self._failure
        logger.info("stopped", extra={"settled": self.crew.settled})
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
        while not self._stops and self.crew.is_short(self.config.worker.processes):
            try:
                replica = self.crew.fork(self.config)
            except OSError as error:
                logger.error("a process cannot be started, trying again", extra={"error": str(error)})  # noqa: TRY400
                if not self._is_refilling:
                    self._is_refilling = True
                    self._start(self._refill())
                return
            self._start(self._attend(replica))

    async def _refill(self) -> None:
        await self._pace.wait(0.0, worked=False, hopeless=False)
        self._is_refilling = False
        self._fill_up()

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
            kind, *values = message
            if kind == "hello":
                namespace, queues, settings, schedules = values
                replica.said_hello = True
                address = Address(namespace, tuple(queues), msgspec.convert(settings, Config))
                self._start(self._welcome(replica, address, schedules))
            elif kind == "ready":
                self._on_ready(replica)
            elif kind == "outage":
                self.outage.hear(f"process {replica.pid}", values[0])
            elif kind == "recycling":
                replica.is_leaving = True
                self._fill_up()
            elif kind == "bye":
                replica.said_bye, replica.ended = True, values[1]
                self._spooled = self._spooled or values[0]
            else:
                replica.hear(kind, *values)

    async def _welcome(self, replica: Replica, address: Address, schedules: dict[str, dict[str, bytes]]) -> None:
        replica.introduced(list(address.queues), address.config, schedules)
        self.config = address.config
        self._fill_up()  # the app's own settings may ask for more processes than the environment did, or for fewer
        is_registered = False
        if not self.crew.is_surplus(replica, self.config.worker.processes):
            try:
                await self._scraping.open(self.config.telemetry)
                is_registered = await self._registrar.register(replica, address, self._ending.is_set)
            except StreamworkError as error:  # a wrong password, or a URL that is none
                replica.failure = error
                self._fail(error)
        if not is_registered or replica.is_leaving or self._stops or replica.home is None:
            replica.send_off("stop")
            return
        replica.go(replica.home.endpoint.url)
        replica.home.keeper.tell(replica)
        replica.home.keeper.declare(replica.schedules)

    def _on_ready(self, replica: Replica) -> None:
        replica.is_ready = True
        worker, home = replica.config.worker, replica.home
        logger.debug("process ready", extra={"consumer": replica.name, "pid": replica.pid})
        if self._announced or home is None or not all(other.is_ready for other in self.crew.staying):
            return
        self._announced = True
        logger.info("worker ready", extra={
            "app": home.address.namespace, "redis": f"{home.server} at {home.endpoint.where}", "queues": replica.queues,
            "tags": list(worker.tags), "processes": len(self.crew.staying), "slots": worker.slots, "worker": self.name,
        })  # fmt: skip

    async def _after_death(self, replica: Replica, status: int) -> None:
        self.crew.remove(replica)
        self.outage.over(f"process {replica.pid}")
        self._leaving += 1
        try:
            await see_off(replica, status, self.name, self._ending)
            await self.homes.leave(other.home for other in self.crew.replicas)
        except Exception:
            logger.exception("a process that ended was not seen off", extra={"consumer": replica.name})
        finally:
            self._leaving -= 1
        if not self._stops:
            hopeless = self._is_hopeless(replica, status)
            if hopeless or self.crew.is_short(self.config.worker.processes):  # else its place is taken already
                worked = replica.is_leaving or (status == EXIT_OK and replica.taken > 0)
                await self._pace.wait(replica.age_s, worked=worked, hopeless=hopeless)
            self._fill_up()
        self._end_if_over()

    def _is_hopeless(self, replica: Replica, status: int) -> bool:
        """Whether the next process would end in the same way; the worker ends then, or waits for a change."""
        failure = replica.failure
        if status == EXIT_OK and not replica.said_hello and not is_in_order(replica, status):
            failure = AppBroken("the app ends its process when it is imported (status 0)")
        if failure is None or replica.is_draining:
            return False
        if self._announced and replica.may_heal:
            # This worker has run: what its app needs to start is away, and may come back.
            logger.error("a process could not start and is replaced", extra={"error": str(failure)})
            return False
        self._fail(failure)
        return True

    def _end_if_over(self) -> None:
        if self._stops and not self.crew.replicas and not self._leaving:
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
        self._ending.set()
        self._pace.hurry()
        replicas = self.crew.replicas
        if replicas and self._failure is None:
            what = "draining" if self._stops == 1 else "stopping now"
            logger.info(what, extra={"running": sum(len(replica.table.started()) for replica in replicas)})
        for replica in replicas:
            if self._stops == 1:
                self._start(drain(replica))
            else:
                replica.send_off("stop")
        if self._stops == 2:
            self._start(kill_unheard(replicas))
        self._end_if_over()

    def _recycle(self, replica: Replica) -> None:
        """Let a process end what it has, and put another in its place at once."""
        replica.send_off("recycle")
        self._fill_up()

    async def _watch_files(self) -> None:
        try:
            # Forked before files are watched, a process could have imported what is changed before the first look.
            await watch_files(self._on_change, self._fill_up)
        finally:
            self._fill_up()

    def _on_change(self) -> None:
        self._pace.hurry()
        for replica in self.crew.staying:
            self._start(drain(replica))
        self._fill_up()

    async def _end_when_idle(self) -> None:
        try:
            patience = lambda: self.config.client.send_timeout_s  # noqa: E731 - the app's own, once it is known
            await until_idle(self.crew.replicas, self.homes, patience)
            await self.homes.tell_left()
        except StoreUnavailable as error:
            self._fail(error)
        if not self._stops:
            self._on_stop()
