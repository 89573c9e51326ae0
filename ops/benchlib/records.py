"""Read the record file that the tasks write, and judge delivery from it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchlib.recorder import FINISHED, LAYOUT

_POLL_S = 0.01


class Record(NamedTuple):
    """One event of one task body."""

    task_id: int
    at_ns: int
    pid: int
    kind: int


@dataclass(frozen=True)
class Delivery:
    """What became of `expected` tasks, counted by their ids."""

    expected: int
    unique: int
    duplicates: int
    unknown: int

    @property
    def missing(self) -> int:
        """How many ids never ran."""
        return self.expected - self.unique

    @property
    def exact(self) -> bool:
        """Whether every id ran once and nothing else ran."""
        return not (self.missing or self.duplicates or self.unknown)

    def as_dict(self) -> dict[str, object]:
        """Return the figures under the names that runs and tables use."""
        return {
            "expected": self.expected,
            "done": self.unique,
            "missing": self.missing,
            "dup": self.duplicates,
            "unknown": self.unknown,
            "exact": self.exact,
        }


class RecordFile:
    """The events of one run, in memory-backed storage where the system has it."""

    def __init__(self) -> None:
        shared_memory = Path("/dev/shm")
        descriptor, name = tempfile.mkstemp(
            prefix="streamwork-bench-", dir=shared_memory if shared_memory.is_dir() else None
        )
        os.close(descriptor)
        self.path = Path(name)

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)

    def count(self) -> int:
        """Return the number of events so far."""
        return self.path.stat().st_size // LAYOUT.size

    def read(self) -> list[Record]:
        """Return the events in the order in which they were written."""
        content = self.path.read_bytes()
        whole = len(content) // LAYOUT.size * LAYOUT.size
        return [Record(*fields) for fields in LAYOUT.iter_unpack(content[:whole])]

    def of_kind(self, kind: int) -> list[Record]:
        """Return the events of one kind."""
        return [event for event in self.read() if event.kind == kind]

    def delivery(self, expected: int) -> Delivery:
        """Judge the finished bodies against the ids 0 … `expected` - 1."""
        ids = [event.task_id for event in self.of_kind(FINISHED)]
        unique = set(ids)
        known = sum(1 for task_id in unique if 0 <= task_id < expected)
        return Delivery(expected, known, len(ids) - len(unique), len(unique) - known)

    def wait(self, wanted: int, cap_s: float, is_alive: Callable[[], bool], quiet_s: float = 12.0) -> str:
        """Wait for `wanted` events and say how it ended.

        Returns:
            "done"; "cap" when `cap_s` seconds have passed since the first event (or 30 s without any);
            "stalled" after `quiet_s` seconds without a new one; "worker-exit" when the worker is gone.
        """
        begun = last_progress = started = time.monotonic()
        seen = -1
        while True:
            count, now = self.count(), time.monotonic()
            if count != seen:
                seen, last_progress = count, now
            if count >= wanted:
                return "done"
            if count == 0 and now - begun < 30:
                started = now
            if now - started > cap_s:
                return "cap"
            if count and now - last_progress > quiet_s:
                return "stalled"
            if not is_alive():
                return "worker-exit"
            time.sleep(_POLL_S)
