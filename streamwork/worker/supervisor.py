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
from collections.abc import Callable
from typing import Any

from streamwork.app import Streamwork
from streamwork.config import Config
from streamwork.errors import AppNotFound, StoreError, StoreUnavailable
from streamwork.ids import random_id
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.child import EXIT_APP, EXIT_OK, EXIT_SPOOLED, run_child
from streamwork.worker.keeper import Keeper
from streamwork.worker.replica import Replica
from streamwork.worker.watch import Watchdog, watch_files

logger = logging.getLogger(__name__)

# A process that dies sooner than this after its start is replaced after a pause that doubles up to 30 s.
_QUICK_DEATH_S = 5.0

class Supervisor:
    """Runs worker processes until told to end.

    Args:
        endpoint: Redis.
        find_app: Imports the app; called in the children only.
        config: Settings.
        burst: End when there is nothing left to do.
        reload: Replace the processes when a Python file below the current folder changes.
    """

    def __init__(self, endpoint: Endpoint, find_app: Callable[[], Streamwork], config: Config, *, burst: bool = False, reload: bool = False) -> None:
        self.endpoint = endpoint
        self.config = config
        self.name = f"{socket.gethostname()}-{os.getpid()}-{random_id(24)}"
        self.replicas: list[Replica] = []
        self._find_app = find_app
        self._burst = burst
        self._reload = reload
        self._keeper: Keeper | None = None
        self._stops = 0
        self._spooled = False
        self._failure = ""
        self._quick_deaths = 0
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self) -> int:
        """Run to the end; returns the exit status: 0, 3 where outcomes were spooled, 1 where the app cannot be used."""
        gc.collect()
        gc.freeze()  # children share these pages as long as nobody's collector touches them
        return asyncio.run(self._main())

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        # The default resolver starts a thread, and a fork beside a thread may inherit a held lock.
        loop.getaddrinfo = _resolve_here  # type: ignore[method-assign]
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        for _ in range(self.config.worker.processes):
            self._spawn()
        helpers = [asyncio.create_task(Watchdog(self.replicas, self.config, self._is_beating).run())]
        if self._reload:
            helpers.append(asyncio.create_task(watch_files(self.recycle)))
        if self._burst:
            helpers.append(asyncio.create_task(self._end_when_idle()))
        await self._done.wait()
        for task in (*helpers, *self._tasks):
            task.cancel()
        await asyncio.gather(*helpers, *self._tasks, return_exceptions=True)
        if self._keeper is not None:
            await self._keeper.stop()
        if self._failure:
            raise AppNotFound(self._failure)
        return EXIT_SPOOLED if self._spooled else EXIT_OK

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_beating(self) -> bool:
        return self._keeper is not None and self._keeper.is_beating

    def _spawn(self) -> None:
        replica = Replica(self.config.worker.slots, self.name, len(self.replicas))
        pid = os.fork()
        if pid == 0:
            self._become_child(replica)
        replica.forked(pid)
        self.replicas.append(replica)
        self._start(self._attend(replica))

    def _become_child(self, replica: Replica) -> None:
        status = 1
        try:
            asyncio.set_event_loop(None)
            asyncio._set_running_loop(None)  # noqa: SLF001 - the parent's loop is on this stack and must not be used
            signal.set_wakeup_fd(-1)
            for other in self.replicas:
                other.forget()  # or the siblings would not see the end of file when the supervisor dies
            end = replica.child_side()
            status = run_child(self._find_app, self.config, end, replica.table, os.getppid())
        except BaseException:
            logger.exception("worker process failed")
        finally:
            logging.shutdown()
            os._exit(status)

    async def _attend(self, replica: Replica) -> None:
        """Go through one process's life: hello, registration, work, death."""
        ended = asyncio.ensure_future(replica.wait())
        await replica.channel.open()
        listening = asyncio.ensure_future(self._listen(replica))
        await ended
        await listening
        await self._after_death(replica, ended.result())

    async def _listen(self, replica: Replica) -> None:
        while (message := await replica.channel.receive()) is not None:
            kind, values = message[0], message[1:]
            if kind == "hello":
                self._start(self._welcome(replica, *values))
            elif kind == "ready":
                logger.info("worker ready", extra={"consumer": replica.name, "pid": replica.pid, "queues": replica.queues, "tags": list(self.config.worker.tags)})
            elif kind == "stats":
                replica.taken, replica.ended, replica.in_hand, replica.is_idle = values
            elif kind == "failed":
                replica.failure = values[0]
            elif kind == "bye":
                self._spooled = self._spooled or values[0]
            elif kind == "fenced":
                pass  # it has stopped reading; the new name is on its way

    async def _welcome(self, replica: Replica, namespace: str, queues: list[str]) -> None:
        replica.queues = queues
        while not self._stops:
            try:
                keeper = await self._keeper_for(namespace, queues)
                await self._add(keeper, replica)
            except StoreUnavailable as error:
                logger.warning("waiting for Redis", extra={"error": str(error)})
                await asyncio.sleep(0.5)
            except StoreError as error:
                self._failure = str(error)
                self._done.set()
                return
            else:
                replica.channel.send("go", replica.name)
                keeper.tell(replica)
                return
        replica.channel.send("stop")

    async def _keeper_for(self, namespace: str, queues: list[str]) -> Keeper:
        if self._keeper is None:
            keeper = Keeper(namespace, self.config, queues, self._driver, self.name)
            await keeper.start()
            self._keeper = keeper
        return self._keeper

    def _driver(self, deadline_s: float) -> AsyncDriver:
        return AsyncDriver(self.endpoint, ALL_SCRIPTS, deadline_s)

    async def _add(self, keeper: Keeper, replica: Replica) -> None:
        replica.on_fenced = lambda: self._start(self._rename(replica))
        await keeper.add(replica, replica.registration(self.config))

    async def _rename(self, replica: Replica) -> None:
        replica.channel.send("fenced")
        replica.new_name()
        while self._keeper is not None and not replica.is_dead:
            try:
                await self._add(self._keeper, replica)
            except StoreUnavailable:
                await asyncio.sleep(0.5)
            else:
                replica.channel.send("rename", replica.name)
                self._keeper.tell(replica)
                return

    async def _after_death(self, replica: Replica, status: int) -> None:
        self.replicas.remove(replica)
        in_order = status in (EXIT_OK, EXIT_SPOOLED, EXIT_APP)
        evidence = replica.evidence or (f"status {status}" if status >= 0 else f"signal {-status} ({signal.Signals(-status).name})")
        if not in_order:
            logger.error("worker process died", extra={"consumer": replica.name, "pid": replica.pid, "how": evidence})
        if self._keeper is not None and replica.queues:
            await self._hand_over(replica, in_order=in_order, evidence=f"process {replica.pid} of {self.name} ended with {evidence}")
        replica.close()
        if status == EXIT_APP and not self._reload:
            self._failure = replica.failure or "the app cannot be used"
            self._stops = max(self._stops, 1)
        if self._stops:
            if not self.replicas:
                self._done.set()
            return
        await self._replace(replica, status)

    async def _replace(self, replica: Replica, status: int) -> None:
        quick = replica.age_s < _QUICK_DEATH_S and (status != EXIT_OK or not replica.taken)
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if self._quick_deaths:
            await asyncio.sleep(min(30.0, 0.25 * 2 ** (self._quick_deaths - 1)))
        if not self._stops:
            self._spawn()
        elif not self.replicas:
            self._done.set()

    async def _hand_over(self, replica: Replica, *, in_order: bool, evidence: str) -> None:
        keeper = self._keeper
        assert keeper is not None  # noqa: S101 - the caller looked
        started = {} if in_order else replica.started_by_queue()
        try:
            marked = await keeper.remove(replica, mode="leave" if in_order else "dead", evidence=evidence, started=started)
        except StoreError as error:
            logger.warning("could not hand over, the reaper will", extra={"consumer": replica.name, "error": str(error)})
            return
        if marked:
            logger.warning("entries handed over", extra={"consumer": replica.name, "entries": marked, "how": evidence})

    def _on_stop(self) -> None:
        self._stops += 1
        logger.info("draining" if self._stops == 1 else "stopping now", extra={"in_hand": sum(r.in_hand for r in self.replicas)})
        for replica in self.replicas:
            replica.channel.send("drain" if self._stops == 1 else "stop")
        if not self.replicas:
            self._done.set()

    def recycle(self) -> None:
        """Drain every process; each is replaced as it ends."""
        for replica in self.replicas:
            replica.channel.send("drain")

    async def _end_when_idle(self) -> None:
        calm = 0
        while calm < 3:  # three looks 0.1 s apart: stats travel every 0.1 s
            await asyncio.sleep(0.1)
            is_idle = bool(self.replicas) and all(replica.is_idle for replica in self.replicas)
            calm = calm + 1 if is_idle and self._keeper is not None and self._keeper.is_beating else 0
        self._on_stop()


async def _resolve_here(host: Any, port: Any, **options: Any) -> Any:
    return socket.getaddrinfo(host, port, **options)
