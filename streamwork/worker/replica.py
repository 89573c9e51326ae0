"""One worker process as its supervisor sees it: pid, channel, shared table, and its name in Redis."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import MOST_SLOTS, Config
from streamwork.errors import AppBroken, StoreRejected, StreamworkError
from streamwork.ids import random_id
from streamwork.telemetry.meters import Series
from streamwork.worker.channel import Channel
from streamwork.worker.homes import Home
from streamwork.worker.slot_table import SlotTable


class Replica:
    """A forked process; a `Member` of the keeper.

    Args:
        config: Settings, until the process says which ones its app has.
        supervisor: Name of the supervisor.
        number: Its place among the siblings.

    Attributes:
        is_leaving: Told to end, or ending by itself; another one does its work.
        is_draining: It has a deadline by which it is gone.
        is_blamed: Whether what it had started is to blame for its death.
        failure: What it said kept it from starting, and may_heal whether that may pass without a change.
        has_begun: It takes deliveries; and is_ready: none of them has to wait for a process to start.
        home: Where it is registered, or about to be.
        series: Its numbers, where somebody wants to know them.
    """

    def __init__(self, config: Config, supervisor: str, number: int) -> None:
        self.config = config
        self.table = SlotTable(MOST_SLOTS)
        self.supervisor = supervisor
        self.number = number
        self.queues: list[str] = []
        self.schedules: dict[str, dict[str, bytes]] = {}
        self.pid = 0
        self.taken = self.ended = self.in_hand = 0
        self.is_idle = False
        self.series: list[Series] = []
        self.is_dead = self.is_draining = self.is_leaving = False
        self.evidence = ""
        self.is_blamed = True
        self.failure: StreamworkError | None = None
        self.may_heal = False
        self.has_begun = self.is_ready = self.said_hello = self.said_bye = False
        self.home: Home | None = None
        self.on_fenced: Callable[[], None] | None = None
        # A process hears of nothing before it may go, and of marks it is not told again.
        self._early: list[tuple[str, str, list[str]]] | None = []
        self._began_s = time.monotonic()
        self._mine, self._its = socket.socketpair()
        self.channel = Channel(self._mine)
        self.new_name()

    def new_name(self) -> None:
        """Take a name that was never used: an incarnation (rule 11)."""
        self.name = f"{self.supervisor}-{self.number}-{random_id(24)}"

    def tell(self, type_: str, detail: str = "") -> None:
        """Let an event of this process be told; nobody hears of one that is not registered."""
        if self.home is not None:
            self.home.keeper.teller.tell(type_, worker=self.name, detail=detail)

    @property
    def age_s(self) -> float:
        """Seconds since the fork."""
        return time.monotonic() - self._began_s

    def forked(self, pid: int) -> None:
        """In the supervisor: note the pid and drop the child's end."""
        self.pid = pid
        self._its.close()

    def child_side(self) -> socket.socket:
        """In the child: drop the supervisor's end and return the own one."""
        self._mine.close()
        return self._its

    def forget(self) -> None:
        """In a later child: drop what belongs to this sibling."""
        self._mine.close()

    async def wait(self) -> int:
        """Wait for the process to end; its exit status, or minus the signal that killed it."""
        try:
            fd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            return await self._poll()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(fd, lambda: None if ended.done() else ended.set_result(None))
        try:
            await ended
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return self._reap()

    async def _poll(self) -> int:
        # Without pidfd there is nothing to be woken by, and WNOHANG does not block.
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:  # noqa: ASYNC110, ASYNC222
            await asyncio.sleep(0.05)
        return self._reap()

    def _reap(self) -> int:
        self.is_dead = True
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def send_off(self, kind: str) -> None:
        """Tell the process to end: ``drain``, ``recycle`` (drain without a deadline) or ``stop``."""
        self.is_leaving = True
        self.channel.send(kind)

    def kill(self, signal_number: int, evidence: str, *, is_blamed: bool = True) -> None:
        """Kill the process and say why, and whether what it runs is to blame."""
        if not self.is_dead:
            self.evidence, self.is_blamed = evidence, is_blamed
            os.kill(self.pid, signal_number)

    def hear(self, kind: str, *values: Any) -> None:
        """Hear what the process says of itself."""
        if kind == "begins":
            self.has_begun = True
        elif kind == "stats":
            self.taken, self.ended, self.in_hand, self.is_idle = values
        elif kind == "series":
            self.series = [Series(name, tuple(labels), value) for name, labels, value in values[0]]
        elif kind == "failed":
            self._failed(*values)

    def _failed(self, kind: str, text: str) -> None:
        # Redis refuses, a setting is wrong, or the app raises: "store", "config", "app".
        self.failure = StoreRejected(text) if kind == "store" else AppBroken(text)
        self.may_heal = kind != "config"

    def introduced(self, queues: list[str], config: Config, schedules: dict[str, dict[str, bytes]]) -> None:
        """Hear what its app reads, which settings count, and what it declares."""
        self.queues = queues
        self.schedules = schedules
        self.config = config
        self.table.slots = config.worker.slots

    def registration(self) -> bytes:
        """Return what Redis is told about this consumer."""
        worker = self.config.worker
        return msgspec.json.encode({
            "worker": self.supervisor, "host": socket.gethostname(), "pid": self.pid, "tags": sorted(worker.tags),
            "slots": worker.slots, "queues": self.queues, "started_at_ms": SYSTEM_CLOCK.now_ms(),
        })  # fmt: skip

    def started_by_queue(self) -> dict[str, list[tuple[str, bytes]]]:
        """Return what the process had started, as its table still says: (lane, entry) by queue."""
        found: dict[str, list[tuple[str, bytes]]] = {}
        for started in self.table.started():
            found.setdefault(self.queues[started.queue_number], []).append((started.lane, started.entry))
        return found

    def close(self) -> None:
        """Close the channel and free the table."""
        self.channel.drop()
        self._its.close()
        self.table.close()

    @property
    def claimed_at_ms(self) -> int:
        """When it last had an answer to a read, steady ms."""
        return self.table.read_at_ms

    def beaten(self, at_ms: int) -> None:
        """Leave the beat where the process sees it."""
        self.table.beat_at_ms = at_ms

    def fenced(self) -> None:
        """Hear that the consumer was declared dead."""
        self.table.beat_at_ms = 0
        if self.on_fenced is not None:
            self.on_fenced()

    def lanes_changed(self, queue: str, lanes: list[str], fleet: int) -> None:
        """Pass on which lanes there are."""
        self.channel.send("lanes", queue, lanes, fleet)

    def paused_changed(self, queue: str, marks: list[str]) -> None:
        """Pass on what is paused."""
        self.channel.send("paused", queue, marks)

    def lane_returned(self, queue: str, lane: str) -> None:
        """Pass on that a lane holds entries to adopt."""
        self.channel.send("returned", queue, lane)

    def cancel_asked(self, queue: str, task_ids: list[str]) -> None:
        """Pass on what is not to be started."""
        self._tell("cancel", queue, task_ids)

    def terminate_asked(self, queue: str, task_ids: list[str]) -> None:
        """Pass on which runs are to be ended."""
        self._tell("terminate", queue, task_ids)

    def go(self, url: str) -> None:
        """Let the process connect and work, and tell it what was cancelled before."""
        self.channel.send("go", self.name, url)
        early, self._early = self._early or (), None
        for message in early:
            self.channel.send(*message)

    def _tell(self, kind: str, queue: str, task_ids: list[str]) -> None:
        if self._early is None:
            self.channel.send(kind, queue, task_ids)
        else:
            self._early.append((kind, queue, task_ids))
