"""SAQ."""

import asyncio
from collections.abc import Sequence
from typing import Any

from saq import Queue

from benchlib.recorder import MODE, SLOTS, STARTED, URL, record
from benchlib.recorder import burn as use_processor

queue = Queue.from_url(URL)


async def noop(context: dict[str, Any], *, i: int) -> int:
    record(i)
    return i


async def sleep(context: dict[str, Any], *, i: int, seconds: float) -> int:
    record(i, STARTED)
    await asyncio.sleep(seconds)
    record(i)
    return i


async def burn(context: dict[str, Any], *, i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


settings: dict[str, Any] = {"queue": queue, "functions": [noop, sleep, burn], "concurrency": SLOTS or 10}
if MODE == "tuned":
    settings["timers"] = {"sweep": 5}
_OPTIONS: dict[str, Any] = {"retries": 3} if MODE in ("durable", "tuned") else {}


async def open_session() -> None:
    """Connect."""
    await queue.connect()


async def send(task: str, task_id: int, seconds: float | None = None) -> Any:
    """Send one task."""
    arguments: dict[str, Any] = {"i": task_id} if seconds is None else {"i": task_id, "seconds": seconds}
    return await queue.enqueue(task, **arguments, **_OPTIONS)


async def send_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
    """Send many; there is no bulk API, so 50 at once over its connection pool."""
    for begin in range(0, len(ids), 50):
        await asyncio.gather(*(send(task, task_id, seconds) for task_id in ids[begin : begin + 50]))


async def call(task: str, task_id: int, timeout: float) -> Any:
    """Send and wait in one: `apply` is the documented request and response, and it polls.

    `job.refresh(until_complete=)` misses a completion that lands before its subscription.
    """
    try:
        return await queue.apply(task, timeout=timeout, i=task_id)
    except Exception as error:
        # The sweep at worker start aborts jobs caught between BLMOVE and "active".
        if type(error).__name__ != "JobError":
            raise
