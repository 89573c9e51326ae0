"""The demo's workers: two daemons of their own, one of which is killed while it holds deliveries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from streamwork.cli.demo_tasks import TAG
from streamwork.store.commands import plain
from streamwork.store.keys import GROUP, QueueKeys
from streamwork.store.sync_driver import SyncDriver

APP = "streamwork.cli.demo_tasks:app"

# What a worker holds when it is killed: enough to see them come back, little beside the whole.
SLOTS = 8

# A worker imports streamwork and registers in about half a second; a machine that is busy with other things in more.
_START_S = 30.0
# Drained by then: no file takes a second.
_STOP_S = 10.0
_KILL_S = 10.0
# Between two looks at a worker that holds nothing at this instant; one file takes 4 ms on average.
_LOOK_S = 0.002
_REGISTRATION_POLL_S = 0.05


class Daemon:
    """One `streamwork worker`: a supervisor and its worker process, in a process group of their own.

    Args:
        number: 1 or 2.
        url: Redis.
        queue: What it reads.
        log: Where its output goes.

    Attributes:
        pids: Supervisor, then the worker process once it has registered; empty before the start.
        consumer: The worker process's name in Redis once it has registered.
    """

    def __init__(self, number: int, url: str, queue: str, log: Path) -> None:
        self.number = number
        self.log = log
        self.consumer = ""
        self.pids: list[int] = []
        self._url = url
        self._queue = queue
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; not waited for."""
        place = ["--app", APP, "--url", self._url, "--queues", self._queue]
        size = ["--tags", TAG, "--slots", str(SLOTS), "--processes", "1"]
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamwork", "worker", *place, *size],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a group to kill whole, and Ctrl-C reaches the demo alone
            )
        self.pids = [self._process.pid]

    @property
    def status(self) -> int | None:
        """Its exit status, minus the signal that killed it; None = it runs, or was not started."""
        return None if self._process is None else self._process.poll()

    def registered(self, consumer: str, pid: int) -> None:
        """Note its worker process."""
        self.consumer = consumer
        self.pids = [self.pids[0], pid]

    def kill_holding(self, held: Callable[[str], set[bytes]], patience_s: float) -> set[bytes]:
        """SIGKILL supervisor and worker process at an instant when the consumer holds deliveries.

        Args:
            held: Answers which entries a consumer holds now.
            patience_s: Seconds to wait for such an instant; after that it is killed with what it has.

        Returns:
            What it held. Both processes are gone.
        """
        deadline_s = time.monotonic() + patience_s
        while True:
            # Stopped, so that what it is seen to hold is what it dies with.
            self._signal(signal.SIGSTOP)
            entries = held(self.consumer)
            if entries or time.monotonic() > deadline_s:
                self.kill()
                return entries
            self._signal(signal.SIGCONT)
            time.sleep(_LOOK_S)

    def kill(self) -> None:
        """SIGKILL the whole group and wait until it is gone; nothing to do where it is gone already."""
        if self._process is None or (self.status is not None and all(map(_is_gone, self.pids[1:]))):
            return
        self._signal(signal.SIGKILL)
        self._process.wait(_KILL_S)
        deadline_s = time.monotonic() + _KILL_S
        while not all(map(_is_gone, self.pids[1:])):
            if time.monotonic() > deadline_s:
                raise click.ClickException(f"worker {self.number} survived SIGKILL: pids {self.pids}")
            time.sleep(_LOOK_S)

    def stop(self) -> int | None:
        """Drain it and return its exit status; killed where it does not end in time."""
        if self._process is not None and self.status is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                pass  # killed below, and the status tells
        self.kill()
        return self.status

    def last_words(self) -> str:
        """Return the last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pids[0], number)
        except (ProcessLookupError, PermissionError):
            pass  # nobody left in the group; macOS says EPERM for a group of zombies


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return True  # the number belongs to somebody else already
    # A container whose first process reaps nobody keeps the dead as zombies.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip() or state.startswith("Z")


def wait_until_registered(daemons: Sequence[Daemon], driver: SyncDriver, keys: QueueKeys) -> None:
    """Wait until every worker is known in Redis; raises ClickException for one that ends or takes too long."""
    deadline_s = time.monotonic() + _START_S
    while True:
        registered = _registered(driver, keys)
        for daemon in daemons:
            found = registered.get(daemon.pids[0])
            if found is not None:
                daemon.registered(*found)
            elif daemon.status is not None or time.monotonic() > deadline_s:
                how = "did not register" if daemon.status is None else f"ended with status {daemon.status}"
                raise click.ClickException(f"worker {daemon.number} {how}: {daemon.last_words()} (from {daemon.log})")
        if all(daemon.consumer for daemon in daemons):
            return
        time.sleep(_REGISTRATION_POLL_S)


def _registered(driver: SyncDriver, keys: QueueKeys) -> dict[int, tuple[str, int]]:
    """Return the process group of each registered worker process with its consumer name and pid."""
    reply: Sequence[bytes] = driver.run(plain("HGETALL", keys.consumers))
    found = {}
    for consumer, registration in zip(reply[::2], reply[1::2], strict=True):
        pid: int = msgspec.json.decode(registration)["pid"]
        try:
            found[os.getpgid(pid)] = consumer.decode(), pid
        except ProcessLookupError:
            continue  # it has died since; its daemon's status will say so
    return found


def held_by(driver: SyncDriver, keys: QueueKeys, consumer: str) -> set[bytes]:
    """Return the entries that a consumer holds, in all lanes."""
    entries: set[bytes] = set()
    for lane in driver.run(plain("HKEYS", keys.lanes)):
        stream = keys.lane(lane.decode())
        pending: list[Any] = driver.run(plain("XPENDING", stream, GROUP, "-", "+", 1000, consumer))
        entries.update(row[0] for row in pending)
    return entries
