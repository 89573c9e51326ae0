"""Send tasks from inside a peer's own virtual environment; print one marked JSON line.

An adapter is a module under `peers/` with `send(task, task_id, seconds)`, sync or async, and optionally
`send_bulk(task, ids, seconds)`, `BULK_CHUNK`, `result(handle, timeout)`, `call(task, task_id, timeout)` where a
system's documented request and response is one call, `open_session()` and `close_session()`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_RESULT_S = 20
# A system without results has nothing to wait for: the next task must not meet a busy worker.
_NO_RESULT_PAUSE_S = 0.01
_SETTLE_S = 1.0


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class _Meter:
    """Time and processor time of one enqueueing run."""

    def __init__(self, cap_s: float) -> None:
        self._cpu_s = _cpu_s()
        self._begun = time.monotonic()
        self.deadline = self._begun + cap_s

    def figures(self, sent: int) -> dict[str, Any]:
        elapsed = time.monotonic() - self._begun
        return {"sent": sent, "seconds": elapsed, "cpu_s": _cpu_s() - self._cpu_s}


class _Stamps:
    """Instants of each task: before sending, when sent, when its result was here."""

    def __init__(self, has_result: bool) -> None:
        self._has_result = has_result
        self._rows: list[tuple[int, int, int]] = []

    def add(self, before: int, sent: int, result: int) -> None:
        self._rows.append((before, sent, result))

    def figures(self) -> dict[str, Any]:
        before, sent, result = (list(column) for column in zip(*self._rows, strict=True))
        return {"before": before, "sent": sent, "result": result, "has_result": self._has_result}


def _chunks(adapter: ModuleType, options: argparse.Namespace) -> Iterator[range]:
    size = getattr(adapter, "BULK_CHUNK", 1000)
    last = options.first + options.tasks
    for begin in range(options.first, last, size):
        yield range(begin, min(begin + size, last))


def _enqueue_sync(adapter: ModuleType, options: argparse.Namespace) -> dict[str, Any]:
    meter, sent = _Meter(options.cap), 0
    if options.bulk and hasattr(adapter, "send_bulk"):
        for ids in _chunks(adapter, options):
            adapter.send_bulk(options.task, ids, options.seconds)
            sent += len(ids)
            if time.monotonic() > meter.deadline:
                break
        return meter.figures(sent)
    for task_id in range(options.first, options.first + options.tasks):
        adapter.send(options.task, task_id, options.seconds)
        sent += 1
        if time.monotonic() > meter.deadline:
            break
    return meter.figures(sent)


async def _enqueue_async(adapter: ModuleType, options: argparse.Namespace) -> dict[str, Any]:
    meter, sent = _Meter(options.cap), 0
    if options.bulk and hasattr(adapter, "send_bulk"):
        for ids in _chunks(adapter, options):
            await adapter.send_bulk(options.task, ids, options.seconds)
            sent += len(ids)
            if time.monotonic() > meter.deadline:
                break
        return meter.figures(sent)
    for task_id in range(options.first, options.first + options.tasks):
        await adapter.send(options.task, task_id, options.seconds)
        sent += 1
        if time.monotonic() > meter.deadline:
            break
    return meter.figures(sent)


async def _enqueue_concurrently(adapter: ModuleType, options: argparse.Namespace) -> dict[str, Any]:
    meter = _Meter(options.cap)
    ids = iter(range(options.first, options.first + options.tasks))

    async def sender() -> int:
        sent = 0
        for task_id in ids:
            await adapter.send(options.task, task_id, options.seconds)
            sent += 1
            if time.monotonic() > meter.deadline:
                break
        return sent

    return meter.figures(sum(await asyncio.gather(*(sender() for _ in range(options.width)))))


def _latency_sync(adapter: ModuleType, options: argparse.Namespace) -> dict[str, Any]:
    for number in range(options.warm):
        adapter.result(adapter.send("noop", -1 - number, None), _RESULT_S)
    time.sleep(_SETTLE_S)
    stamps, deadline = _Stamps(has_result=True), time.monotonic() + options.cap
    for task_id in range(options.tasks):
        before = time.monotonic_ns()
        handle = adapter.send("noop", task_id, None)
        sent = time.monotonic_ns()
        adapter.result(handle, _RESULT_S)
        stamps.add(before, sent, time.monotonic_ns())
        if time.monotonic() > deadline:
            break
    return stamps.figures()


async def _latency_async(adapter: ModuleType, options: argparse.Namespace) -> dict[str, Any]:
    call = getattr(adapter, "call", None)
    wait = getattr(adapter, "result", None)

    async def once(task_id: int) -> tuple[int, int, int]:
        before = time.monotonic_ns()
        if call is not None:
            await call("noop", task_id, _RESULT_S)
            result = time.monotonic_ns()
            return before, result, result
        handle = await adapter.send("noop", task_id, None)
        sent = time.monotonic_ns()
        await (wait(handle, _RESULT_S) if wait is not None else asyncio.sleep(_NO_RESULT_PAUSE_S))
        return before, sent, time.monotonic_ns()

    for number in range(options.warm):
        await once(-1 - number)
    await asyncio.sleep(_SETTLE_S)
    stamps, deadline = _Stamps(call is not None or wait is not None), time.monotonic() + options.cap
    for task_id in range(options.tasks):
        stamps.add(*await once(task_id))
        if time.monotonic() > deadline:
            break
    return stamps.figures()


def _run_sync(adapter: ModuleType, options: argparse.Namespace) -> dict[str, Any]:
    if hasattr(adapter, "open_session"):
        adapter.open_session()
    return (_latency_sync if options.action == "latency" else _enqueue_sync)(adapter, options)


async def _run_async(adapter: ModuleType, options: argparse.Namespace) -> dict[str, Any]:
    if hasattr(adapter, "open_session"):
        await adapter.open_session()
    actions = {"enqueue": _enqueue_async, "concurrent": _enqueue_concurrently, "latency": _latency_async}
    try:
        return await actions[options.action](adapter, options)
    finally:
        if hasattr(adapter, "close_session"):
            await adapter.close_session()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["enqueue", "concurrent", "latency"])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--task", default="noop")
    parser.add_argument("--tasks", type=int, default=20000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--bulk", type=int, default=0)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--cap", type=float, default=30)
    parser.add_argument("--warm", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    """Do what the command line says."""
    options = _parse()
    adapter = importlib.import_module(f"benchlib.peers.{options.peer}")
    is_async = inspect.iscoroutinefunction(adapter.send)
    figures = asyncio.run(_run_async(adapter, options)) if is_async else _run_sync(adapter, options)
    sys.stdout.write("\nBENCH " + json.dumps(figures) + "\n")
    sys.stdout.flush()
    # Some clients keep threads that never end; the figures are out.
    os._exit(0)


if __name__ == "__main__":
    main()
