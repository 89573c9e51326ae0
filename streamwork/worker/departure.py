"""What follows when a process has ended: whether its deliveries are to blame for it, and handing over what it had."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from streamwork.worker.child import EXIT_APP, EXIT_OK, EXIT_SPOOLED
from streamwork.worker.replica import Replica

logger = logging.getLogger(__name__)

# Evidence of a process that its own supervisor cut short: nobody's crash.
_UNHEARD = "killed: it did not stop when told to"
# What a process gets to stop in after a second SIGTERM: cancelling, giving back and a settle take 3 s at most.
_STOP_S = 5.0


async def kill_unheard(replicas: list[Replica]) -> None:
    """Kill, after a while, what a second SIGTERM did not end: a body or a lifespan holds its loop."""
    await asyncio.sleep(_STOP_S)
    for replica in replicas:
        replica.kill(signal.SIGKILL, _UNHEARD)


async def see_off(replica: Replica, status: int, supervisor: str) -> None:
    """Say how a process ended, hand over what it had, and free its table.

    Args:
        replica: The process.
        status: Its exit status, or minus the signal that killed it.
        supervisor: Name of its supervisor, for the evidence.
    """
    # A body may end the process with any status (os._exit): then something is started and nobody said goodbye.
    is_cut = not replica.said_bye and bool(replica.started_by_queue())
    in_order = status in (EXIT_OK, EXIT_SPOOLED, EXIT_APP) and not is_cut
    evidence = replica.evidence or _told(status)
    if not in_order:
        logger.error("worker process died", extra={"consumer": replica.name, "pid": replica.pid, "how": evidence})
    if replica.home is not None:
        is_blamed = not in_order and replica.evidence != _UNHEARD
        started = replica.started_by_queue() if is_blamed else {}
        how = f"process {replica.pid} of {supervisor} ended with {evidence}"
        await replica.home.hand_over(replica, "dead" if is_blamed else "leave", how, started)
    replica.close()


def _told(status: int) -> str:
    name = ""
    with contextlib.suppress(ValueError):  # real-time signals have no name
        name = f" ({signal.Signals(-status).name})"
    return f"status {status}" if status >= 0 else f"signal {-status}{name}"
