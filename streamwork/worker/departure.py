"""How a process is told to end, by when it has to, and what follows: whose fault it was, and who gets what it had."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from streamwork.clock import SYSTEM_CLOCK
from streamwork.worker.child import EXIT_APP, EXIT_OK, EXIT_SPOOLED
from streamwork.worker.replica import Replica

logger = logging.getLogger(__name__)

# Evidence of a process that its own supervisor cut short: nobody's crash.
_UNHEARD = "killed: it did not stop when told to"
# What a process gets to stop in after a second SIGTERM: cancelling, giving back and a settle take 3 s at most.
_STOP_S = 5.0
# The same after the drain timeout.
_GRACE_S = 4.0
# A loop stamps twice a second; one that has not for so long is blocked, stopped, or done and hanging in a lifespan.
_TURNED_MS = 2_000
# How long a supervisor that is to end waits for Redis to take a hand-over; after that the reaper of another does it.
_HAND_OVER_S = 2.0


async def kill_unheard(replicas: list[Replica]) -> None:
    """Kill, after a while, what a second SIGTERM did not end: a body or a lifespan holds its loop."""
    await asyncio.sleep(_STOP_S)
    for replica in replicas:
        replica.kill(signal.SIGKILL, _UNHEARD, is_blamed=False)


def drain(replica: Replica) -> Coroutine[Any, Any, None]:
    """Tell a process to drain; what is returned kills it when it has not ended soon after its drain timeout.

    Nobody is blamed then. A loop that turns is not cut short before it had the time to find out that Redis does not
    answer: it spools what has ended.
    """
    replica.is_draining = True
    replica.tell("worker.draining")
    replica.send_off("drain")
    return _kill_late(replica)


async def _kill_late(replica: Replica) -> None:
    worker, client = replica.config.worker, replica.config.client
    await asyncio.sleep(_GRACE_S + (worker.drain_timeout_s if replica.has_begun else 0.0))
    give_up_ms = SYSTEM_CLOCK.steady_ms() + int(client.deadline_s * 1000)
    while SYSTEM_CLOCK.steady_ms() < min(give_up_ms, replica.table.loop_at_ms + _TURNED_MS):  # noqa: ASYNC110 - two clocks
        await asyncio.sleep(0.25)
    replica.kill(signal.SIGKILL, _UNHEARD, is_blamed=False)


async def see_off(replica: Replica, status: int, supervisor: str, ending: asyncio.Event) -> None:
    """Say how a process ended, hand over what it had, and free its table.

    Args:
        replica: The process.
        status: Its exit status, or minus the signal that killed it.
        supervisor: Name of its supervisor, for the evidence.
        ending: Set once the supervisor is to end: a Redis that does not answer is then not waited for.
    """
    in_order = is_in_order(replica, status)
    evidence = replica.evidence or _told(status)
    if not in_order:
        logger.error("worker process died", extra={"consumer": replica.name, "pid": replica.pid, "how": evidence})
    try:
        if replica.home is not None:
            is_blamed = not in_order and replica.is_blamed
            started = replica.started_by_queue() if is_blamed else {}
            how = f"process {replica.pid} of {supervisor} ended with {evidence}\n{replica.table.last_lines.text()}"
            handing = replica.home.hand_over(replica, "dead" if is_blamed else "leave", how.rstrip(), started)
            await _unless_ending(asyncio.ensure_future(handing), replica.name, ending)
    finally:
        replica.close()


def is_in_order(replica: Replica, status: int) -> bool:
    """Whether a process ended as it should: it said why, or was told to and had nothing under way."""
    if status == EXIT_APP:
        return replica.failure is not None
    # A body may end the process with any status (os._exit): then nobody said goodbye.
    is_told = replica.is_leaving and not replica.started_by_queue()
    return status in (EXIT_OK, EXIT_SPOOLED) and (replica.said_bye or is_told)


async def _unless_ending(handing: asyncio.Future[None], consumer: str, ending: asyncio.Event) -> None:
    hurry = asyncio.ensure_future(ending.wait())
    both: set[asyncio.Future[Any]] = {handing, hurry}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    _, late = await asyncio.wait({handing}, timeout=_HAND_OVER_S)
    if late:
        handing.cancel()
        logger.warning("could not hand over", extra={"consumer": consumer, "error": "Redis does not answer"})
    else:
        handing.result()


def _told(status: int) -> str:
    name = ""
    with contextlib.suppress(ValueError):  # real-time signals have no name
        name = f" ({signal.Signals(-status).name})"
    return f"status {status}" if status >= 0 else f"signal {-status}{name}"
