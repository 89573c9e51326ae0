"""Dramatiq."""

import time
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchlib.recorder import MODE, STARTED, URL, record
from benchlib.recorder import burn as use_processor

_TUNED = {"heartbeat_timeout": 15000, "maintenance_chance": 100000} if MODE == "tuned" else {}
broker = RedisBroker(url=URL, **_TUNED)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop(i: int) -> int:
    record(i)
    return i


@dramatiq.actor(store_results=True)
def sleep(i: int, seconds: float) -> int:
    record(i, STARTED)
    time.sleep(seconds)
    record(i)
    return i


@dramatiq.actor(store_results=True)
def burn(i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


_TASKS = {"noop": noop, "noop_sync": noop, "sleep": sleep, "burn": burn}


def send(task: str, task_id: int, seconds: float | None = None) -> Any:
    """Send one task; there is no bulk API."""
    return _TASKS[task].send(task_id, *(() if seconds is None else (seconds,)))


def result(handle: Any, timeout: float) -> Any:
    """Wait for a result."""
    return handle.get_result(block=True, timeout=int(timeout * 1000))
