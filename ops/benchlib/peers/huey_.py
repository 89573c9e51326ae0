"""Huey."""

import time
from typing import Any

from huey import RedisHuey

from benchlib.recorder import STARTED, URL, record
from benchlib.recorder import burn as use_processor

huey = RedisHuey("bench", url=URL)


@huey.task()
def noop(i: int) -> int:
    record(i)
    return i


@huey.task()
def sleep(i: int, seconds: float) -> int:
    record(i, STARTED)
    time.sleep(seconds)
    record(i)
    return i


@huey.task()
def burn(i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


_TASKS = {"noop": noop, "noop_sync": noop, "sleep": sleep, "burn": burn}


def send(task: str, task_id: int, seconds: float | None = None) -> Any:
    """Send one task; there is no bulk API."""
    return _TASKS[task](task_id, *(() if seconds is None else (seconds,)))


def result(handle: Any, timeout: float) -> Any:
    """Wait for a result."""
    return handle.get(blocking=True, timeout=timeout)
