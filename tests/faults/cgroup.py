"""A memory limit of the kernel's (cgroup v1): what exceeds it is killed by the kernel, as on a full machine."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from streamwork.ids import random_id

_ROOT = Path("/sys/fs/cgroup/memory")


def why_not():
    """Return why there can be no such limit here, or ""."""
    if os.access(_ROOT / "memory.limit_in_bytes", os.R_OK) and os.access(_ROOT, os.W_OK):
        return ""
    return "no memory controller (cgroup v1) that this user may write to"


class MemoryLimit:
    """The processes of a worker, without its supervisor, may together have so much memory.

    With the supervisor in the group the kernel sometimes kills that too, milliseconds later: the process is dead then,
    and its memory does not count as free yet.

    Args:
        megabytes: How much.
        worker: Whose; processes that it starts later are put into the group before they have a body to run.
    """

    def __init__(self, megabytes, worker):
        self._folder = _ROOT / f"streamwork-{random_id(32)}"
        self._folder.mkdir()
        (self._folder / "memory.limit_in_bytes").write_text(str(megabytes << 20))
        self._worker, self._ends = worker, threading.Event()
        self._add()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        while not self._ends.wait(0.01):
            self._add()

    def _add(self):
        for pid in self._worker.children:
            try:
                (self._folder / "cgroup.procs").write_text(str(pid))
            except OSError:  # it has ended
                continue

    @property
    def kills(self):
        """How many processes the kernel has killed for it."""
        facts = dict(line.split() for line in (self._folder / "memory.oom_control").read_text().splitlines())
        return int(facts["oom_kill"])

    def close(self):
        """Give the group up; its processes have ended."""
        self._ends.set()
        self._thread.join()
        for _ in range(200):
            try:
                self._folder.rmdir()
            except OSError:  # the kernel has not let go of the last one yet
                time.sleep(0.01)
            else:
                return
