"""What happened, outside Redis: append-only files, one per process, one write per record.

Standard library only: bodies write here from inside workers, pool processes and forks, until the instant they die.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

# What a file's records may be; tests/faults/README.md says who writes which, and when.
KINDS = frozenset({
    "attempted", "acknowledged", "refused", "doubtful", "broke",
    "started", "effect", "ended",
    "seen", "unseen",
    "fault", "answered", "proof", "planted", "erased",
})  # fmt: skip


class Record(NamedTuple):
    """One record.

    Attributes:
        at_ns: CLOCK_MONOTONIC, which all processes of a machine share.
        kind: One of `KINDS`.
        pid: Who wrote it.
        label: The message's name, given by its producer before it has an id.
        id: Task id, empty where there is none yet.
        facts: The rest, by kind.
    """

    at_ns: int
    kind: str
    pid: int
    label: str = ""
    id: str = ""
    facts: dict = {}


class History:
    """A folder of such files; the process that writes finds its own by its pid, so a fork begins another."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pid, self._file = 0, -1
        # What was read so far, by file: bytes, and the records in them. Whoever waits for a record reads often.
        self._read = {}

    def write(self, kind, label="", task_id="", **facts):
        """Append a record; whole or not at all, whatever kills the process."""
        assert kind in KINDS, kind
        pid = os.getpid()
        line = {"at_ns": time.monotonic_ns(), "kind": kind, "pid": pid, "label": label, "id": task_id, **facts}
        if pid != self._pid:
            # Not closed: after a fork it is the parent's.
            path = self.folder / f"{pid}.jsonl"
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._pid = pid
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def read(self):
        """Return the records of all processes in the order of their instants."""
        found = [record for path in self.folder.glob("*.jsonl") for record in self._records(path)]
        return sorted(found, key=lambda record: record.at_ns)

    def _records(self, path):
        size, records = self._read.get(path, (0, []))
        with path.open("rb") as file:
            file.seek(size)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        records = [*records, *map(_record, whole.splitlines())]
        self._read[path] = size + len(whole), records
        return records

    def of(self, kind, label=None):
        """Return the records of one kind, or those of one message."""
        return [one for one in self.read() if one.kind == kind and label in (None, one.label)]


def _record(line):
    facts = json.loads(line)
    fixed = [facts.pop(name) for name in ("at_ns", "kind", "pid", "label", "id")]
    return Record(*fixed, facts)
