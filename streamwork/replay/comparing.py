"""Run current code over past deliveries, several at a time, and say what differs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, cast

from streamwork.model.history import HistoryGap
from streamwork.model.replay import INCOMPATIBLE, NOT_COMPARED, SAME, Compared, Comparison, Ran, Slower
from streamwork.replay.body import Delivery, arun_here, judged, run_here, timed_out
from streamwork.replay.capture import Capture
from streamwork.replay.hands import Processes, Threads
from streamwork.replay.host import Host
from streamwork.replay.judging import CRASHES, Finding, compared, judge
from streamwork.replay.past import Past, delivery_of, why_not

_Pages = Iterator[list[Past | HistoryGap]]


class Comparing:
    """One comparison; the bodies run on the loop that `run` is awaited on, in threads and in processes.

    Args:
        app: Whose tasks run.
        capture: What takes what they send.
        concurrency: Bodies at a time.
        slower: From when on a body counts as slower; None = never.
    """

    def __init__(self, app: Host, capture: Capture, concurrency: int, slower: Slower | None) -> None:
        self._app, self._capture, self._slower = app, capture, slower
        self._room = asyncio.Semaphore(concurrency)
        self._resources: Any = None
        self._threads = Threads()
        self._processes = Processes(app.tasks, capture)
        self._counts: Counter[str] = Counter()
        self._by: Counter[str] = Counter()
        self._different: list[Compared] = []
        self._gaps: list[HistoryGap] = []
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, queue: str, pages: _Pages, told: Callable[[Compared], None]) -> Comparison:
        """Compare what is read; `told` is called on the loop with each, as it comes."""
        begun_s, app = time.monotonic(), self._app
        async with AsyncExitStack() as stack:
            stack.callback(self._threads.close)
            stack.callback(self._processes.close)
            if app.lifespan_of is not None:
                self._resources = await stack.enter_async_context(app.lifespan_of())
            try:
                async for past in _read(pages, self._gaps):
                    await self._room.acquire()
                    task = asyncio.create_task(self._one(past, told))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                await asyncio.gather(*self._running)
            finally:
                left = [*self._running]
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)
        self._different.sort(key=lambda one: tuple(map(int, one.cursor.split("-"))))
        return Comparison(
            queue=queue, counts=dict(self._counts), by=dict(self._by), different=self._different, gaps=self._gaps,
            took_s=round(time.monotonic() - begun_s, 3),
        )  # fmt: skip

    async def _one(self, past: Past, told: Callable[[Compared], None]) -> None:
        try:
            found = await self._compare(past)
        finally:
            self._room.release()
        self._counts[found.change] += 1
        if found.by:
            self._by[found.by] += 1
        if found.change != SAME:
            self._different.append(found)
        told(found)

    async def _compare(self, past: Past) -> Compared:
        record = past.record
        if why := why_not(record):
            return compared(past, None, Finding(NOT_COMPARED, "", why))
        task = self._app.tasks.get(record.task)
        if task is None:
            return compared(past, None, Finding(INCOMPATIBLE, "", f"the app declares no task {record.task!r}"))
        ran = await self._run(delivery_of(self._app, record, "compare"), is_risky=record.error_type in CRASHES)
        return compared(past, ran, judge(past, ran, task, self._slower))

    async def _run(self, delivery: Delivery, *, is_risky: bool) -> Ran:
        """Run where the task says; what killed its process before does so in a process of its own, whatever it is."""
        task = delivery.task
        if is_risky or task.executor == "process":
            return await self._threads.run(partial(self._processes.run, delivery), None)
        if task.is_async:
            return await arun_here(delivery, self._capture, self._resources)
        try:
            return await self._threads.run(
                partial(run_here, delivery, self._capture, self._resources), delivery.timeout_s
            )
        except TimeoutError:
            limit_s = delivery.timeout_s
            return judged(delivery, None, timed_out(limit_s), (limit_s or 0) * 1000, self._capture)


async def _read(pages: _Pages, gaps: list[HistoryGap]) -> AsyncIterator[Past]:
    """Yield deliveries, read in a thread of their own while bodies run; gaps go to their list."""
    loop, done = asyncio.get_running_loop(), object()
    with ThreadPoolExecutor(1, "streamwork-replay-read") as pool:
        while (page := await loop.run_in_executor(pool, next, pages, done)) is not done:
            for one in cast(list[Past | HistoryGap], page):
                if isinstance(one, Past):
                    yield one
                else:
                    gaps.append(one)
