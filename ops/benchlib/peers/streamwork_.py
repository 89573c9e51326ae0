"""streamwork itself; BENCH_API=async makes the producer use the async twins.

Modes: the name of a limit gives every task that one, and `limits` gives it all five.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from benchlib.recorder import MODE, STARTED, STOPPED, URL, record
from benchlib.recorder import burn as use_processor
from streamwork import Context, Limit, Rate, Streamwork

# `enqueue_many` takes any iterable and cuts it itself; a user would hand over the whole of it.
BULK_CHUNK = 100_000

# Limits with room for all, so that what is measured is their price and not what they hold back: ten groups take turns
# in the window that a queue has for groups, and all else goes straight to its lane.
_LIMITS: dict[str, Any] = {
    "rate": Rate("1000000/s"),
    "concurrency": Limit(1_000_000),
    "key": lambda i, *_: i,
    "group": lambda i, *_: f"tenant-{i % 10}",
    "unique": lambda i, *_: i,
}
_OPTIONS: dict[str, Any] = _LIMITS if MODE == "limits" else {MODE: _LIMITS[MODE]} if MODE in _LIMITS else {}

app = Streamwork("bench", url=URL)


@app.task(**_OPTIONS)
async def noop(i: int) -> int:
    record(i)
    return i


@app.task(**_OPTIONS)
def noop_sync(i: int) -> int:
    record(i)
    return i


@app.task(**_OPTIONS)
async def sleep(i: int, seconds: float) -> int:
    record(i, STARTED)
    await asyncio.sleep(seconds)
    record(i)
    return i


@app.task(**_OPTIONS)
async def burn(i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


@app.task
async def held(i: int) -> None:
    """Run until it is cancelled, and note when it hears of that."""
    record(i, STARTED)
    try:
        await asyncio.sleep(60)
    finally:
        record(i, STOPPED)


@app.task
async def planned(schedule: int, ctx: Context) -> None:
    """Note an occurrence under its instant and the number of its schedule."""
    assert ctx.scheduled_at is not None
    record(occurrence_id(round(ctx.scheduled_at.timestamp()), schedule))


def occurrence_id(at_s: int, schedule: int) -> int:
    """Return the id of an occurrence, unique among fewer than 1,000 schedules."""
    return at_s * 1000 + schedule


_TASKS: dict[str, Any] = {"noop": noop, "noop_sync": noop_sync, "sleep": sleep, "burn": burn}


def _arguments(task_id: int, seconds: float | None) -> tuple[float, ...]:
    return (task_id,) if seconds is None else (task_id, seconds)


def _send(task: str, task_id: int, seconds: float | None = None) -> Any:
    return _TASKS[task].enqueue(*_arguments(task_id, seconds))


def _send_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
    app.enqueue_many(_TASKS[task].call(*_arguments(task_id, seconds)) for task_id in ids)


def _result(handle: Any, timeout: float) -> Any:
    return handle.result(timeout=timeout)


async def _asend(task: str, task_id: int, seconds: float | None = None) -> Any:
    return await _TASKS[task].aenqueue(*_arguments(task_id, seconds))


async def _asend_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
    await app.aenqueue_many(_TASKS[task].call(*_arguments(task_id, seconds)) for task_id in ids)


async def _aresult(handle: Any, timeout: float) -> Any:
    return await handle.aresult(timeout=timeout)


if os.environ.get("BENCH_API") == "async":
    send, send_bulk, result = _asend, _asend_bulk, _aresult
else:
    send, send_bulk, result = _send, _send_bulk, _result  # type: ignore[assignment]
