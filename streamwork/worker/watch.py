"""What a supervisor watches: processes that hang or grow, and source files that change."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ConfigError, StoreUnavailable
from streamwork.worker.replica import Replica

logger = logging.getLogger(__name__)

_PAGE = os.sysconf("SC_PAGE_SIZE")
# A loop stamps twice a second.
_HELD_UP_MS = 2_000
# Beyond what a process itself needs to find its connection dead: a busy machine is late too.
_MARGIN_S = 3.0


class Watchdog:
    """Kill hung processes and replace those that grew too large; looks every second.

    Args:
        replicas: The supervisor's own list.
        is_beating: Whether Redis answers the supervisor; when it does not, a process without reads is no wonder.
        recycle: Lets a process end what it has and puts another in its place.
    """

    INTERVAL_S = 1.0

    def __init__(
        self, replicas: list[Replica], is_beating: Callable[[], bool], recycle: Callable[[Replica], None]
    ) -> None:
        self._replicas = replicas
        self._is_beating = is_beating
        self._beating_since_ms = 0
        self._looked_at_ms = self._awake_since_ms = SYSTEM_CLOCK.steady_ms()
        self._recycle = recycle
        self._turning_since_ms: WeakKeyDictionary[Replica, int] = WeakKeyDictionary()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self.INTERVAL_S)
            self.look()

    def look(self) -> None:
        """Look at every process once."""
        now_ms = SYSTEM_CLOCK.steady_ms()
        # Late itself, it was stopped (Ctrl-Z, a suspended machine), and so were they: each gets its time anew.
        if now_ms - self._looked_at_ms > 3 * self.INTERVAL_S * 1000:
            self._awake_since_ms = now_ms
        self._looked_at_ms = now_ms
        if not self._is_beating():
            self._beating_since_ms = 0
        elif not self._beating_since_ms:
            self._beating_since_ms = now_ms
        for replica in list(self._replicas):
            if replica.is_draining:
                continue  # it has a deadline, at which nobody is blamed
            hung = self._hung(replica, now_ms)
            if hung:
                logger.error(
                    "hung process is killed", extra={"consumer": replica.name, "pid": replica.pid, "why": hung}
                )
                replica.tell("worker.hung", hung)
                replica.kill(signal.SIGKILL, f"hung: {hung}")
            elif self._is_large(replica):
                self._recycle(replica)

    def _hung(self, replica: Replica, now_ms: int) -> str:
        worker, table = replica.config.worker, replica.table
        limit_ms = int(worker.hung_after_s * 1000)
        if not limit_ms or not table.loop_at_ms:
            return ""
        still_ms = now_ms - max(table.loop_at_ms, self._awake_since_ms)
        if still_ms > limit_ms:
            return f"its loop has not turned for {still_ms / 1000:.0f} s"
        # A loop that was held up has not read either, and reads when it turns again.
        if still_ms > _HELD_UP_MS or replica not in self._turning_since_ms:
            self._turning_since_ms[replica] = now_ms
        since_ms = max(table.read_at_ms, self._beating_since_ms, self._awake_since_ms, self._turning_since_ms[replica])
        quiet_ms = now_ms - since_ms
        if table.read_at_ms and self._beating_since_ms and table.free_slots > 0 and quiet_ms > _quiet_limit_ms(replica):
            return f"it has not read for {quiet_ms / 1000:.0f} s with free slots"
        return ""

    def _is_large(self, replica: Replica) -> bool:
        limit_mb = replica.config.worker.max_memory_mb
        # One that has not worked would be followed by the same.
        if not limit_mb or replica.is_leaving or not replica.taken:
            return False
        try:
            pages = int(Path(f"/proc/{replica.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return False
        size_mb = pages * _PAGE // 1_048_576
        if size_mb <= limit_mb:
            return False
        logger.warning("process is over max_memory and is replaced", extra={"pid": replica.pid, "mb": size_mb})
        return True


def _quiet_limit_ms(replica: Replica) -> int:
    """Return how long a process may not read: three blocking reads.

    Not less than it takes the process itself to give a connection up that has silently died, and to make another.
    """
    worker, client = replica.config.worker, replica.config.client
    own_s = worker.block_s + client.deadline_s + client.connect_timeout_s
    return int(1000 * max(3 * worker.block_s, own_s + _MARGIN_S))


class Beating(Protocol):
    """The Redis servers that a supervisor knows (`Homes`)."""

    @property
    def is_beating(self) -> bool:
        """Whether all of them answer."""

    async def may_end(self) -> bool:
        """Return whether nothing is left that may yet come to an idle worker."""


async def until_idle(replicas: list[Replica], homes: Beating, patience_s: Callable[[], float]) -> None:
    """Return once every process has found nothing to do for a while, Redis answers, and nothing else is on its way.

    Raises:
        StoreUnavailable: Redis went away and has not answered for `patience_s` seconds.
    """
    now_s = asyncio.get_running_loop().time
    calm, answered_s = 0, 0.0
    while calm < 3 or not await homes.may_end():  # three looks 0.1 s apart: stats travel every 0.1 s
        await asyncio.sleep(0.1)
        if homes.is_beating:
            answered_s = now_s()
        elif answered_s and now_s() - answered_s > patience_s():
            raise StoreUnavailable("Redis went away and did not come back: what it had not given out is left there")
        is_idle = bool(replicas) and all(replica.is_idle for replica in replicas)
        calm = calm + 1 if is_idle and homes.is_beating else 0


def require_watchfiles() -> None:
    """Raise ConfigError where the package that `watch_files` needs is not installed."""
    if importlib.util.find_spec("watchfiles") is None:
        raise ConfigError("--reload needs watchfiles: pip install '<path to the clone>[reload]'")


async def watch_files(changed: Callable[[], None], watching: Callable[[], None]) -> None:
    """Call `watching` once, then `changed` when a Python file below the current folder changes, until cancelled.

    watchfiles runs threads, and the supervisor forks: so it gets a process of its own, which dies with this one.
    """
    mine, its = socket.socketpair()
    mine.setblocking(False)
    program = [sys.executable, "-m", "streamwork.worker.file_watch", str(its.fileno())]
    # Not asyncio's own: Python 3.11 would wait for it in a thread.
    watcher = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
        program, pass_fds=(its.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
    )
    its.close()
    try:
        while text := await asyncio.get_running_loop().sock_recv(mine, 65_536):
            files = text.decode().split()
            if files:
                logger.info("reloading", extra={"files": files[:5]})
                changed()
            else:
                watching()
        logger.error("files are not watched any more", extra={"status": watcher.wait()})
    finally:
        mine.close()
        watcher.terminate()
        watcher.wait()
