"""The worker processes of a peer: start, weigh, kill."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchlib.peer import Peer
from benchlib.settings import OPS, logs

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOP_S = 3.0
# Killing can race with a fork: what was born meanwhile is found by the next pass.
_KILL_PASSES = 3


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    session: int
    ticks: int
    born: int
    zombie: bool


def _processes() -> Iterator[_Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text()
                # The command may hold spaces and brackets: fields count from the last bracket.
                fields = stat[stat.rindex(")") + 2 :].split()
                yield _Process(
                    pid=int(entry.name),
                    parent=int(fields[1]),
                    session=int(fields[3]),
                    ticks=sum(int(field) for field in fields[11:15]),
                    born=int(fields[19]),
                    zombie=fields[0] == "Z",
                )


def _proportional_set_size(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Workers:
    """Everything one variant of a peer started: its copies and all their descendants."""

    def __init__(self, peer: Peer, variant_name: str, port: int, records: Path) -> None:
        variant = peer.variant(variant_name)
        self._log = (logs() / f"{peer.name}-{variant_name}.log").open("ab")
        self.started_at = time.monotonic()
        self._roots = [
            subprocess.Popen(
                peer.worker_words(variant, port),
                env=peer.environment(port, records, variant),
                cwd=OPS,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
            for _ in range(variant.copies)
        ]
        self._peak_memory = 0
        self._watching = threading.Event()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _family(self) -> list[_Process]:
        """Return the living processes: by session, and by parent for those that opened a session of their own."""
        everyone = list(_processes())
        roots = {root.pid for root in self._roots}
        family = {process.pid for process in everyone if process.session in roots or process.pid in roots}
        grown = True
        while grown:
            children = {process.pid for process in everyone if process.parent in family} - family
            family |= children
            grown = bool(children)
        return [process for process in everyone if process.pid in family and not process.zombie]

    def alive(self) -> bool:
        """Return whether every copy that was started still runs."""
        return all(root.poll() is None for root in self._roots)

    def cpu_s(self) -> float:
        """Return the processor seconds used so far by the whole family, reaped children included."""
        return sum(process.ticks for process in self._family()) / _TICKS_PER_S

    def memory(self) -> tuple[float, int]:
        """Return the proportional set size of the family in MiB, and the number of processes."""
        family = self._family()
        return sum(_proportional_set_size(process.pid) for process in family) / 2**20, len(family)

    def watch_memory(self, every_s: float = 0.25) -> None:
        """Sample memory until the workers stop; reading it costs processor time, so never in a timed run."""

        def sample() -> None:
            while not self._watching.wait(every_s):
                self._peak_memory = max(self._peak_memory, int(self.memory()[0] * 2**20))

        threading.Thread(target=sample, daemon=True).start()

    @property
    def peak_mib(self) -> float:
        """Return the highest sample of `watch_memory` in MiB."""
        return self._peak_memory / 2**20

    def kill(self) -> None:
        """Send SIGKILL to every process of the family."""
        self._watching.set()
        for _ in range(_KILL_PASSES):
            for process in self._family():
                _kill(process.pid)
            time.sleep(0.02)
        for root in self._roots:
            root.wait()

    def stop(self) -> None:
        """End the workers: SIGTERM, three seconds, SIGKILL."""
        self._watching.set()
        family = {(process.pid, process.born) for process in self._family()}
        for root in self._roots:
            if root.poll() is None:
                root.terminate()
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline and any(root.poll() is None for root in self._roots):
            time.sleep(0.05)
        self.kill()
        # Children in a session of their own are no longer ours by descent once their parent has gone.
        for process in _processes():
            if (process.pid, process.born) in family:
                _kill(process.pid)
        self._log.close()
