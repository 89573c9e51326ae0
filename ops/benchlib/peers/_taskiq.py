"""What both taskiq brokers share."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from benchlib.recorder import STARTED, record
from benchlib.recorder import burn as use_processor


def install(broker: Any) -> SimpleNamespace:
    """Declare the tasks on `broker` and return the adapter's functions; there is no bulk API, so 50 at once."""

    @broker.task(task_name="noop")
    async def noop(i: int) -> int:
        record(i)
        return i

    @broker.task(task_name="noop_sync")
    def noop_sync(i: int) -> int:
        record(i)
        return i

    @broker.task(task_name="sleep")
    async def sleep(i: int, seconds: float) -> int:
        record(i, STARTED)
        await asyncio.sleep(seconds)
        record(i)
        return i

    @broker.task(task_name="burn")
    async def burn(i: int) -> int:
        record(i, STARTED)
        use_processor()
        record(i)
        return i

    tasks = {"noop": noop, "noop_sync": noop_sync, "sleep": sleep, "burn": burn}

    async def send(task: str, task_id: int, seconds: float | None = None) -> Any:
        return await tasks[task].kiq(task_id, *(() if seconds is None else (seconds,)))

    async def send_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
        for begin in range(0, len(ids), 50):
            await asyncio.gather(*(send(task, task_id, seconds) for task_id in ids[begin : begin + 50]))

    async def result(handle: Any, timeout: float) -> Any:
        return (await handle.wait_result(timeout=timeout)).return_value

    return SimpleNamespace(open_session=broker.startup, send=send, send_bulk=send_bulk, result=result)
