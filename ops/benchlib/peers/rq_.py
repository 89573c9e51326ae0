"""RQ."""

import time
from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq import Queue, Retry

from benchlib.recorder import MODE, STARTED, URL, record
from benchlib.recorder import burn as use_processor

_MODULE = "benchlib.peers.rq_."
_OPTIONS = {"retry": Retry(max=3)} if MODE == "durable" else {}
_queue: Queue


def noop(i: int) -> int:
    record(i)
    return i


def sleep(i: int, seconds: float) -> int:
    record(i, STARTED)
    time.sleep(seconds)
    record(i)
    return i


def burn(i: int) -> int:
    record(i, STARTED)
    use_processor()
    record(i)
    return i


def open_session() -> None:
    """Connect."""
    global _queue
    _queue = Queue("bench", connection=Redis.from_url(URL))


def _arguments(task_id: int, seconds: float | None) -> tuple[float, ...]:
    return (task_id,) if seconds is None else (task_id, seconds)


def send(task: str, task_id: int, seconds: float | None = None) -> Any:
    """Send one task."""
    return _queue.enqueue(_MODULE + task, *_arguments(task_id, seconds), **_OPTIONS)


def send_bulk(task: str, ids: Sequence[int], seconds: float | None = None) -> None:
    """Send many in one pipeline."""
    with _queue.connection.pipeline() as pipeline:
        jobs = [Queue.prepare_data(_MODULE + task, _arguments(task_id, seconds), **_OPTIONS) for task_id in ids]
        _queue.enqueue_many(jobs, pipeline=pipeline)
        pipeline.execute()


def result(handle: Any, timeout: float) -> Any:
    """Wait for a result."""
    return handle.latest_result(timeout=timeout).return_value
