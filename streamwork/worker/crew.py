"""The processes of a supervisor: those that work, and those that end what they have while others work already."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import socket
import sys

from streamwork.config import Config
from streamwork.errors import ConfigError
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.telemetry.meters import Series, lasting, summed
from streamwork.worker.child import FindApp, become_child
from streamwork.worker.replica import Replica

# Processes that were replaced and still run something, beyond one per worker: more would grow without end where each
# is held by a long task.
_MOST_LEAVING = 4
# What supervisor and process need at least before the first task: loops, channels, connections, shared libraries.
_LEAST_FILES = 32


class Crew:
    """All processes that live, in the order of their forks.

    Args:
        find_app: Imports the app, in the process.
        supervisor: Name of the supervisor.

    Attributes:
        replicas: The processes; whoever sees one off removes it.
        settled: Outcomes of those that were removed.
        past: What of their numbers stays.
        sockets: The supervisor's own, which no process is to keep open.
    """

    def __init__(self, find_app: FindApp, supervisor: str) -> None:
        self.replicas: list[Replica] = []
        self.settled = 0
        self.past: list[Series] = []
        self.sockets: list[socket.socket] = []
        self._find_app = find_app
        self._supervisor = supervisor

    @property
    def staying(self) -> list[Replica]:
        """The processes that are not on their way out."""
        return [replica for replica in self.replicas if not replica.is_leaving]

    def is_short(self, wanted: int) -> bool:
        """Whether another process is to be forked, so that `wanted` ones work."""
        return len(self.staying) < wanted and len(self.replicas) < wanted + max(wanted, _MOST_LEAVING)

    def is_surplus(self, replica: Replica, wanted: int) -> bool:
        """Whether this process is one more than wanted; the oldest stay."""
        return replica in self.staying[wanted:]

    def fork(self, config: Config) -> Replica:
        """Fork a process; raises OSError, and nothing is left behind, where the system has no room for it."""
        taken = {replica.number for replica in self.replicas}
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        replica = Replica(config, self._supervisor, number)
        sys.stdout.flush()  # or a child would print it again
        try:
            pid = os.fork()
        except OSError:
            replica.close()
            raise
        if pid == 0:
            for other in self.replicas:
                other.forget()  # or the siblings would not see the end of file when the supervisor dies
            for own in self.sockets:
                own.close()
            become_child(self._find_app, replica.child_side(), replica.table)
        replica.forked(pid)
        self.replicas.append(replica)
        return replica

    def remove(self, replica: Replica) -> None:
        """Take one off that has ended."""
        self.replicas.remove(replica)
        self.settled += replica.ended
        self.past = summed([self.past, lasting(replica.series)])


def require_files(processes: int) -> None:
    """Raise ConfigError where this process may open too few files to run so many processes.

    Short of files, an event loop ends its process with an abort or a traceback, and the next one does too.
    """
    import resource  # not on every system

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = _LEAST_FILES + 2 * processes
    if limit not in (-1, resource.RLIM_INFINITY) and limit < least:
        raise ConfigError(f"the limit of open files is {limit} and a worker needs at least {least}: see ulimit -n")


def share_pages() -> None:
    """Load what every process needs, before the first fork: until one of them writes to a page, it is there once."""
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")  # the child's loop; not on every system
    for script in ALL_SCRIPTS:
        _ = script.sha  # reads its file
    gc.collect()
    gc.freeze()  # a collector that walks over them would write to them
