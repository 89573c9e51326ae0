"""docket (pydocket); run as a program it is the worker that its command line cannot express."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from docket import Docket, Worker

from benchlib.recorder import MODE, SLOTS, STARTED, URL, record
from benchlib.recorder import burn as use_processor


async def noop(i: int) -> int:
    record(i)
    return i


async def sleep(i: int, seconds: float) -> int:
    record(i, STARTED)
    await asyncio.sleep(seconds)
    record(i)
    return i


async def burn(i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


tasks = [noop, sleep, burn]
_TASKS = {"noop": noop, "sleep": sleep, "burn": burn}
_docket: Docket


async def open_session() -> None:
    """Connect and register the tasks."""
    global _docket
    _docket = Docket(name="bench", url=URL)
    await _docket.__aenter__()
    for task in tasks:
        _docket.register(task)


async def close_session() -> None:
    """Disconnect."""
    await _docket.__aexit__(None, None, None)


def _arguments(task_id: int, seconds: float | None) -> tuple[float, ...]:
    return (task_id,) if seconds is None else (task_id, seconds)


async def send(task: str, task_id: int, seconds: float | None = None) -> Any:
    """Send one task."""
    return await _docket.add(_TASKS[task])(*_arguments(task_id, seconds))


async def send_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
    """Send many in one pipeline."""
    await _docket.add_many([_docket.call(_TASKS[task])(*_arguments(task_id, seconds)) for task_id in ids])


async def result(handle: Any, timeout: float) -> Any:
    """Wait for a result."""
    return await handle.get_result(timeout=timedelta(seconds=timeout))


async def _work() -> None:
    # redis-py 8 caps a pool at 100 connections and docket uses more than one per task; a full worker polls, and
    # only the API takes a check interval of milliseconds.
    tuned = {"redelivery_timeout": timedelta(seconds=15)} if MODE == "tuned" else {}
    await Worker.run(
        docket_name="bench",
        url=URL + "?max_connections=2000",
        concurrency=SLOTS or 50,
        minimum_check_interval=timedelta(milliseconds=5),
        tasks=["benchlib.peers.docket_:tasks"],
        **tuned,
    )


if __name__ == "__main__":
    asyncio.run(_work())
