"""Celery."""

import os
import time
from collections.abc import Sequence
from typing import Any

from celery import Celery

from benchlib.recorder import MODE, STARTED, URL, record
from benchlib.recorder import burn as use_processor

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    broker_connection_retry_on_startup=True,
)
if MODE in ("durable", "tuned"):
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
if MODE == "tuned":
    app.conf.broker_transport_options = {"visibility_timeout": 20}


@app.task(name="noop")
def noop(i: int) -> int:
    record(i)
    return i


@app.task(name="sleep")
def sleep(i: int, seconds: float) -> int:
    record(i, STARTED)
    time.sleep(seconds)
    record(i)
    return i


@app.task(name="burn")
def burn(i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


_TASKS = {"noop": noop, "noop_sync": noop, "sleep": sleep, "burn": burn}


def _arguments(task_id: int, seconds: float | None) -> tuple[float, ...]:
    return (task_id,) if seconds is None else (task_id, seconds)


def send(task: str, task_id: int, seconds: float | None = None) -> Any:
    """Send one task."""
    return _TASKS[task].apply_async(_arguments(task_id, seconds))


def send_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
    """Send many through one producer; Celery has no pipeline."""
    with app.producer_pool.acquire(block=True) as producer:
        for task_id in ids:
            _TASKS[task].apply_async(_arguments(task_id, seconds), producer=producer)


def result(handle: Any, timeout: float) -> Any:
    """Wait for a result."""
    return handle.get(timeout=timeout)
