"""A reader that lacks guards, and how its wait is seen from outside."""

from __future__ import annotations

from streamwork.store.commands import plain
from tests.faults.unguarded import module_without


def without(*names):
    """Return the class of a reader that lacks these guards."""
    return module_without("streamwork.worker.consumer", *names).Consumer


def is_blocked(own, command="xreadgroup"):
    """Whether a client waits in this command."""
    clients = own.run(plain("CLIENT", "LIST")).decode().splitlines()
    return any(f"cmd={command}" in client and "flags=b" in client for client in clients)
