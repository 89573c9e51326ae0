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

from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ConfigError
from streamwork.worker.replica import Replica

logger = logging.getLogger(__name__)

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Watchdog:
    """Kill hung processes and drain those that grew too large; looks every second.

    Args:
        replicas: The supervisor's own list.
        is_beating: Whether Redis answers the supervisor; when it does not, a process without reads is no wonder.
    """

    INTERVAL_S = 1.0

    def __init__(self, replicas: list[Replica], is_beating: Callable[[], bool]) -> None:
        self._replicas = replicas
        self._is_beating = is_beating
        self._beating_since_ms = 0
        self._looked_at_ms = self._awake_since_ms = SYSTEM_CLOCK.steady_ms()
        self._large: set[int] = set()

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
            hung = self._hung(replica, now_ms)
            if hung:
                logger.error(
                    "hung process is killed", extra={"consumer": replica.name, "pid": replica.pid, "why": hung}
                )
                replica.kill(signal.SIGKILL, f"hung: {hung}")
            elif self._is_large(replica):
                self._large.add(replica.pid)
                replica.channel.send("drain")

    def _hung(self, replica: Replica, now_ms: int) -> str:
        worker, table = replica.config.worker, replica.table
        limit_ms = int(worker.hung_after_s * 1000)
        if not limit_ms or not table.loop_at_ms:
            return ""
        still_ms = now_ms - max(table.loop_at_ms, self._awake_since_ms)
        if still_ms > limit_ms:
            return f"its loop has not turned for {still_ms / 1000:.0f} s"
        # Three blocking reads must have come back by then; a fresh connection to Redis gets the same time.
        quiet_ms = max(int(3 * worker.block_s * 1000), 6_000)
        since_ms = max(table.read_at_ms, self._beating_since_ms, self._awake_since_ms)
        if (
            table.read_at_ms
            and self._beating_since_ms
            and table.free_slots > 0
            and now_ms - since_ms > quiet_ms + limit_ms
        ):
            return f"it has not read for {(now_ms - since_ms) / 1000:.0f} s with free slots"
        return ""

    def _is_large(self, replica: Replica) -> bool:
        limit_mb = replica.config.worker.max_memory_mb
        if not limit_mb or replica.pid in self._large:
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


async def until_idle(replicas: list[Replica], is_beating: Callable[[], bool]) -> None:
    """Return once every process has found nothing to do for a while, and Redis answers."""
    calm = 0
    while calm < 3:  # three looks 0.1 s apart: stats travel every 0.1 s
        await asyncio.sleep(0.1)
        is_idle = bool(replicas) and all(replica.is_idle for replica in replicas)
        calm = calm + 1 if is_idle and is_beating() else 0


def require_watchfiles() -> None:
    """Raise ConfigError where the package that `watch_files` needs is not installed."""
    if importlib.util.find_spec("watchfiles") is None:
        raise ConfigError("--reload needs watchfiles: pip install 'streamwork[reload]'")


async def watch_files(changed: Callable[[], None]) -> None:
    """Call `changed` when a Python file below the current folder changes, until cancelled.

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
            logger.info("reloading", extra={"files": text.decode().split()[:5]})
            changed()
        logger.error("files are not watched any more", extra={"status": watcher.wait()})
    finally:
        mine.close()
        watcher.terminate()
        watcher.wait()
