"""The process that runs tasks: forked by the supervisor, it finds the app, says hello, and works until told to end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from streamwork.app import Streamwork
from streamwork.errors import (
    AppBroken,
    AppNotFound,
    ConfigError,
    StoreError,
    StoreUnavailable,
    StreamworkError,
    WorkerCut,
)
from streamwork.model.judge import text_of, type_name
from streamwork.outage import Outage
from streamwork.telemetry import logs
from streamwork.worker.channel import Channel
from streamwork.worker.slot_table import SlotTable
from streamwork.worker.worker import Worker

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
# Exit statuses that the supervisor understands: ended in order / finished work could not be written / the app could not
# be used; and one that tells it of a crash, to be blamed on what had started: a body has cancelled the worker's loops.
EXIT_OK, EXIT_SPOOLED, EXIT_APP, EXIT_CUT = 0, 3, 4, 1

# How long a lifespan that was told to end while it started may take for it.
_CANCEL_S = 1.0
# How often its numbers are told to the supervisor, for Prometheus.
_COUNT_S = 1.0
# Linux ends this process with its supervisor (rule 19), a moment after the channel's end is heard: what is logged of a
# drain is true of the systems where it lives on.
_AFTERLIFE_S = 0.2

FindApp = Callable[[], Streamwork]


def become_child(find_app: FindApp, end: socket.socket, table: SlotTable) -> NoReturn:
    """Leave the supervisor's loop behind, right after the fork, and be a worker process to the end."""
    status = 1
    try:
        asyncio.set_event_loop(None)
        asyncio._set_running_loop(None)  # noqa: SLF001 - the parent's loop is on this stack and must not be used
        signal.set_wakeup_fd(-1)
        status = run_child(find_app, end, table, os.getppid())
    except BaseException:
        logger.exception("worker process failed")
    finally:
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)


def run_child(find_app: FindApp, end: socket.socket, table: SlotTable, parent: int) -> int:
    """Be a worker process; returns its exit status.

    Args:
        find_app: Imports the app; here, so that each process has its own and a reload sees new code. Its settings are
            the ones that count.
        end: This side of the channel.
        table: Shared with the supervisor.
        parent: The supervisor's pid.
    """
    _die_with(parent)
    logs.keep_last(table.last_lines)
    # The supervisor decides, and says so over the channel. A handler that does nothing, since what is ignored stays
    # so in the programs that bodies start, and those could not be ended.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    # Not asyncio.run: at its end that waits for bodies which ignore their cancellation and for threads that bodies have
    # started, and the drain timeout is over.
    return _new_loop().run_until_complete(_main(find_app, end, table))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the call above


async def _main(find_app: FindApp, end: socket.socket, table: SlotTable) -> int:
    channel = Channel(end)
    await channel.open()
    try:
        app = find_app()
    except StreamworkError as error:
        return await _failed(channel, error)
    except BaseException as error:
        logger.debug("the app cannot be imported", exc_info=True)
        return await _failed(channel, AppBroken(f"the app cannot be imported: {type(error).__name__}: {error}"))
    # What is imported now lives as long as the process: keep the collector from walking it.
    gc.collect()
    gc.freeze()
    try:
        child = _Child(app, channel, table)
    except StreamworkError as error:
        return await _failed(channel, error)
    return await child.run()


async def _failed(channel: Channel, error: StreamworkError, kind: str = "") -> int:
    kind = kind or ("store" if isinstance(error, StoreError) else "config" if isinstance(error, ConfigError) else "app")
    channel.send("failed", kind, str(error))
    await channel.close()
    return EXIT_APP


class _Child:
    def __init__(self, app: Streamwork, channel: Channel, table: SlotTable) -> None:
        self._channel = channel
        self._worker = Worker(app, app.config, "", table)
        # The supervisor writes one line for all its processes.
        self._worker.outage = Outage(lambda error: channel.send("outage", error))
        self._config = app.config
        self._is_started = self._is_draining = self._is_recycling = False
        self._early: list[list[Any]] = []

    async def run(self) -> int:
        worker, channel = self._worker, self._channel
        if not worker.queues:
            return await _failed(channel, AppNotFound(f"app {worker.app.name!r} declares no task"))
        settings, schedules = msgspec.to_builtins(worker.config), worker.app.declared_schedules()
        channel.send("hello", worker.app.name, worker.queues, settings, schedules)
        while (message := await channel.receive()) is not None and message[0] not in ("go", "stop", "drain"):
            pass  # what comes before "go" is told again after it
        if message is None or message[0] != "go":
            return EXIT_OK
        worker.rename_first(message[1])
        loops = [asyncio.create_task(self._listen())]
        try:
            # Of an embedded server the supervisor holds the share, and says where it is.
            worker.app.connection.configure(msgspec.structs.replace(worker.config, url=message[2]))
            if not await self._start_unless_told_to_end():
                return EXIT_OK
        except StreamworkError as error:
            return await _failed(channel, error)
        except Exception as error:
            logger.debug("the lifespan raises", exc_info=True)
            text = f"the lifespan of app {worker.app.name!r} raises {type_name(error)}: {text_of(error)}"
            return await _failed(channel, AppBroken(text), "app")
        channel.send("begins")
        loops += [asyncio.create_task(self._report()), asyncio.create_task(self._get_ready())]
        if self._config.telemetry.metrics_port:
            loops.append(asyncio.create_task(self._count()))
        try:
            await worker.run()
        except WorkerCut as error:
            logger.error(str(error))  # noqa: TRY400 - the body's own matter
            return EXIT_CUT
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        if self._config.telemetry.metrics_port:
            channel.send("series", worker.telling.series())
        channel.send("bye", worker.unwritten > 0, worker.ended)
        await channel.close()
        return EXIT_SPOOLED if worker.unwritten else EXIT_OK

    async def _get_ready(self) -> None:
        try:
            await self._worker.executors.prepare(self._worker.queues)
        except Exception:
            logger.exception("processes for tasks with executor='process' cannot be started")
        self._channel.send("ready")

    async def _start_unless_told_to_end(self) -> bool:
        starting = asyncio.create_task(self._start_patiently())
        ending = asyncio.create_task(self._worker.told_to_end())
        await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=_CANCEL_S)
            return False
        starting.result()
        self._is_started = True
        for message in self._early:
            self._hear(*message)
        return True

    async def _start_patiently(self) -> None:
        while True:
            try:
                await self._worker.start()
            except StoreUnavailable:
                await asyncio.sleep(0.5)
            else:
                return

    async def _listen(self) -> None:
        while True:
            message = await self._channel.receive()
            if message is None:
                self._worker.drain()
                await asyncio.sleep(_AFTERLIFE_S)
                logger.error("the supervisor is gone, draining")
                return
            if not self._is_started and message[0] not in ("drain", "stop"):
                self._early.append(message)
                continue
            try:
                self._hear(*message)
            except Exception:
                logger.exception("a message of the supervisor cannot be followed", extra={"kind": message[0]})

    def _hear(self, kind: str, *values: Any) -> None:
        worker = self._worker
        if kind == "lanes":
            worker.lanes_changed(*values)
        elif kind == "paused":
            worker.paused_changed(*values)
        elif kind == "returned":
            worker.lane_returned(*values)
        elif kind == "cancel":
            worker.cancel_asked(*values)
        elif kind == "terminate":
            worker.terminate_asked(*values)
        elif kind == "fenced":
            worker.fenced()
        elif kind == "rename":
            worker.rename(*values)
        elif kind == "drain":
            self._drain()
        elif kind == "recycle":
            self._recycle()
        elif kind == "stop":
            worker.cancel_now()

    def _drain(self) -> None:
        worker = self._worker
        if self._is_recycling:
            asyncio.get_running_loop().call_later(self._config.worker.drain_timeout_s, worker.cancel_now)
        self._is_draining = True
        worker.drain()

    def _recycle(self) -> None:
        """Drain without a deadline: nobody waits for the end, and what was cut short would begin anew elsewhere."""
        if self._is_draining:
            return
        self._is_draining = self._is_recycling = True
        worker = self._worker
        patient = msgspec.structs.replace(worker.config.worker, drain_timeout_s=math.inf)
        worker.config = msgspec.structs.replace(worker.config, worker=patient)
        self._channel.send("recycling")
        worker.drain()

    async def _count(self) -> None:
        while True:
            self._channel.send("series", self._worker.telling.series())
            await asyncio.sleep(_COUNT_S)

    async def _report(self) -> None:
        worker, limit = self._worker, self._config.worker.max_tasks
        last: tuple[Any, ...] = ()
        while True:
            now = (worker.taken, worker.ended, worker.in_hand, worker.is_idle)
            if now != last:
                self._channel.send("stats", *now)
                last = now
            if limit and worker.taken >= limit:
                logger.info("max_tasks reached, this process is replaced", extra={"taken": worker.taken})
                self._recycle()
                return
            await asyncio.sleep(0.1)
