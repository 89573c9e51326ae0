"""repid, on Redis Streams, without results; run as a program it is the worker."""

import asyncio
from collections.abc import Sequence

from repid import RedisServer, Repid, Router

from benchlib.recorder import MODE, SLOTS, STARTED, URL, record
from benchlib.recorder import burn as use_processor

_TUNED = {"claim_interval": 5.0, "min_idle_ms": 15000} if MODE == "tuned" else {}
app = Repid(title="bench", version="1")
app.servers.register_server("default", RedisServer(URL, **_TUNED), is_default=True)
router = Router()


@router.actor
async def noop(i: int) -> int:
    record(i)
    return i


@router.actor
def noop_sync(i: int) -> int:
    record(i)
    return i


@router.actor
async def sleep(i: int, seconds: float) -> int:
    record(i, STARTED)
    await asyncio.sleep(seconds)
    record(i)
    return i


@router.actor
async def burn(i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


app.include_router(router)


# Held so that it is not collected, which would disconnect.
_connection = app.servers.default.connection()


async def open_session() -> None:
    """Connect, for as long as the producer lives."""
    await _connection.__aenter__()


async def send(task: str, task_id: int, seconds: float | None = None) -> None:
    """Send one task."""
    payload = {"i": task_id} if seconds is None else {"i": task_id, "seconds": seconds}
    await app.send_message_json(channel="default", payload=payload, headers={"topic": task})


async def send_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
    """Send many; there is no bulk API, so 50 at once over its connection pool."""
    for begin in range(0, len(ids), 50):
        await asyncio.gather(*(send(task, task_id, seconds) for task_id in ids[begin : begin + 50]))


async def _work() -> None:
    async with app.servers.default.connection():
        await app.run_worker(tasks_limit=SLOTS or 1000)


if __name__ == "__main__":
    asyncio.run(_work())
