"""arq."""

import asyncio
from collections.abc import Sequence
from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from benchlib.recorder import MODE, SLOTS, STARTED, URL, record
from benchlib.recorder import burn as use_processor

_SETTINGS = RedisSettings.from_dsn(URL)
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "ERROR"}}


async def noop(context: dict[str, Any], i: int) -> int:
    record(i)
    return i


async def sleep(context: dict[str, Any], i: int, seconds: float) -> int:
    record(i, STARTED)
    await asyncio.sleep(seconds)
    record(i)
    return i


async def burn(context: dict[str, Any], i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


class WorkerSettings:
    """What `arq` reads."""

    functions = (noop, sleep, burn)
    redis_settings = _SETTINGS
    max_jobs = SLOTS or 10
    if MODE == "tuned":
        job_timeout = 10


_pool: ArqRedis


async def open_session() -> None:
    """Connect."""
    global _pool
    _pool = await create_pool(_SETTINGS)


async def send(task: str, task_id: int, seconds: float | None = None) -> Any:
    """Send one task."""
    return await _pool.enqueue_job(task, task_id, *(() if seconds is None else (seconds,)))


async def send_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
    """Send many; there is no bulk API, so 50 at once over its connection pool."""
    for begin in range(0, len(ids), 50):
        await asyncio.gather(*(send(task, task_id, seconds) for task_id in ids[begin : begin + 50]))


async def result(handle: Any, timeout: float) -> Any:
    """Wait for a result the default way, which polls every 0.5 s."""
    return await handle.result(timeout=timeout)
