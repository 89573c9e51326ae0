"""The pool of processes: pebble's, made before a delivery needs it, and replaced off the loop when it gave up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from streamwork.worker.pooled import PoolContext, begin, run_in_process

logger = logging.getLogger(__name__)

# How soon it is noticed that a pool gave up and forgot what it had been given, seconds.
_LOOK_S = 0.25
# A pool whose processes ended before they were ready is replaced after a pause that doubles up to so many seconds.
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.5, 30.0
# How long a worker that starts waits for its processes before it says that it is ready, seconds.
_PATIENCE_S = 20.0


class Pool:
    """Processes that have imported their tasks and wait for bodies.

    The pool of pebble gives up for good when a process of it dies while none of them has anything to do. What it was
    given in that moment it forgets, and tells nobody; none of that had begun.

    Args:
        most: How many processes.
        modules: What they import.
        writer: Where they say their words.
        there: Called on the loop once a pool can be given work, or with the error that kept it from starting.
        gone: Called on the loop when a pool gave up; another one is made.
    """

    def __init__(
        self, most: int, modules: list[str], writer: Any, there: Callable[[Exception | None], None],
        gone: Callable[[], None],
    ) -> None:  # fmt: skip
        import pebble  # an extra

        self._pebble = pebble
        self._most, self._modules, self._writer = most, modules, writer
        self._there, self._gone = there, gone
        self._loop = asyncio.get_running_loop()
        # Linux kills a process together with the thread that started it (PR_SET_PDEATHSIG), so this one stays. What
        # it is given goes in order: a pool is not ended while it starts.
        self._thread = ThreadPoolExecutor(1, "streamwork-pool")
        self._pool: Any = None
        self._next: Any = None  # the one that is being made
        self._number = self._ready = 0
        self._pause_s = self._make_at_s = 0.0
        self._is_closed = False
        self._is_warm = asyncio.Event()
        self._make()
        self._looking = self._loop.call_later(_LOOK_S, self._look)

    @property
    def is_there(self) -> bool:
        """Whether there is a pool to give work to."""
        return self._pool is not None

    def _make(self) -> None:
        self._number += 1
        self._ready = 0
        pool = self._next = self._pebble.ProcessPool(
            max_workers=self._most, context=PoolContext(), initializer=begin,
            initargs=(os.getpid(), self._modules, self._writer, self._number),
        )  # fmt: skip
        made = self._loop.run_in_executor(self._thread, _start, pool)
        made.add_done_callback(lambda done: self._made(pool, done.exception()))

    def _made(self, pool: Any, error: BaseException | None) -> None:
        self._next = None
        if self._is_closed:
            return
        if error is None:
            self._pool = pool
            self._there(None)
        else:
            why = f"no process could be started: {error.__cause__ or error}"
            self._later(why)
            self._there(BrokenProcessPool(why))

    def _later(self, why: str) -> None:
        """Let pools that do not get ready not follow each other without end; a delivery that waits is not held up."""
        self._is_warm.set()  # whoever waits for it waits no longer, and the first delivery tells of the trouble
        if self._ready >= self._most:
            self._pause_s = 0.0
        else:
            self._pause_s = min(_MOST_PAUSE_S, 2 * self._pause_s or _FIRST_PAUSE_S)
            logger.warning(
                "processes for executor='process' do not get ready, trying again",
                extra={"next_try_in_s": self._pause_s, "why": why},
            )
        self._make_at_s = self._loop.time() + self._pause_s

    def want(self) -> None:
        """Make a pool now where there is none: a delivery waits for it."""
        if self._pool is None and self._next is None and not self._is_closed:
            self._make()

    def schedule(self, work: tuple[Any, ...]) -> Future[Any]:
        """Give a body to the next process that is free; raises RuntimeError where the pool gave up."""
        if self._pool is None:
            raise BrokenProcessPool("its process pool gave up")
        try:
            return self._pool.schedule(run_in_process, args=work)  # type: ignore[no-any-return]
        except RuntimeError:
            self._replace()
            raise

    def look(self) -> None:
        """Replace the pool where it gave up."""
        if self._pool is not None and not self._pool.active:
            self._replace()

    def _look(self) -> None:
        self._looking = self._loop.call_later(_LOOK_S, self._look)
        self.look()
        if self._loop.time() >= self._make_at_s:
            self.want()

    def _replace(self) -> None:
        broken, self._pool = self._pool, None
        self._later("they ended before all had imported the app: see above what they wrote")
        if not self._pause_s:
            self._make()
        self._loop.run_in_executor(None, _end, broken)
        self._gone()

    def heard_ready(self, number: int) -> None:
        """Hear that a process of the pool with this number has imported its tasks."""
        if number == self._number:
            self._ready += 1
            if self._ready >= self._most:
                self._pause_s = 0.0
                self._is_warm.set()

    async def warm(self) -> None:
        """Wait until all processes can begin a body at once, at most 20 s; not where they cannot be started."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self._is_warm.wait()

    def close(self) -> None:
        """End the processes."""
        self._is_closed = True
        self._looking.cancel()
        pool, self._pool = self._pool or self._next, None
        if pool is not None:
            self._thread.submit(_end, pool).result()
        self._thread.shutdown()


def _start(pool: Any) -> None:
    if not pool.active:
        raise BrokenProcessPool("the pool has ended")


def _end(pool: Any) -> None:
    pool.stop()
    pool.join(timeout=5)
