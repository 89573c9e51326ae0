"""A memory limit of the kernel's (cgroup v1): what exceeds it is killed by the kernel, as on a full machine."""

from __future__ import annotations

import os
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
    """A group of processes, each with all its future descendants, that together may have so much memory."""

    def __init__(self, megabytes):
        self._folder = _ROOT / f"streamwork-{random_id(32)}"
        self._folder.mkdir()
        (self._folder / "memory.limit_in_bytes").write_text(str(megabytes << 20))

    def add(self, pid):
        """Put a process into the group."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self):
        """How many processes the kernel has killed for it."""
        facts = dict(line.split() for line in (self._folder / "memory.oom_control").read_text().splitlines())
        return int(facts["oom_kill"])

    def close(self):
        """Give the group up; its processes have ended."""
        for _ in range(200):
            try:
                self._folder.rmdir()
            except OSError:  # the kernel has not let go of the last one yet
                time.sleep(0.01)
            else:
                return
