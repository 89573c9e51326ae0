"""streaQ, on Redis Streams."""

from collections.abc import Sequence
from typing import Any

import anyio
from streaq import Worker

from benchlib.recorder import MODE, SLOTS, STARTED, URL, record
from benchlib.recorder import burn as use_processor

_TUNED = {"idle_timeout": 15} if MODE == "tuned" else {}
worker = Worker(redis_url=URL, concurrency=SLOTS or 16, anyio_kwargs={"use_uvloop": True}, **_TUNED)


@worker.task(silent=True, name="noop")
async def noop(i: int) -> int:
    record(i)
    return i


@worker.task(silent=True, name="noop_sync")
def noop_sync(i: int) -> int:
    record(i)
    return i


@worker.task(silent=True, name="sleep")
async def sleep(i: int, seconds: float) -> int:
    record(i, STARTED)
    await anyio.sleep(seconds)
    record(i)
    return i


@worker.task(silent=True, name="burn")
async def burn(i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


_TASKS = {"noop": noop, "noop_sync": noop_sync, "sleep": sleep, "burn": burn}


async def open_session() -> None:
    """Connect."""
    await worker.__aenter__()


async def close_session() -> None:
    """Disconnect."""
    await worker.__aexit__(None, None, None)


def _task(task: str, task_id: int, seconds: float | None) -> Any:
    return _TASKS[task].enqueue(task_id, *(() if seconds is None else (seconds,)))


async def send(task: str, task_id: int, seconds: float | None = None) -> Any:
    """Send one task."""
    return await _task(task, task_id, seconds)


async def send_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
    """Send many in one pipeline."""
    await worker.enqueue_many([_task(task, task_id, seconds) for task_id in ids])


async def result(handle: Any, timeout: float) -> Any:
    """Wait for a result."""
    return (await handle.result(timeout=timeout)).result
