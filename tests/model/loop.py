"""A loop that does nothing by itself: coroutines of the product are stepped by hand, timers follow a virtual clock."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque

from streamwork.errors import StoreError
from tests.model.driver import Op


class Timer:
    """What `call_later` answers."""

    __slots__ = ("args", "callback", "is_cancelled")

    def __init__(self, callback, args):
        self.callback = callback
        self.args = args
        self.is_cancelled = False

    def cancel(self):
        """Never call it."""
        self.is_cancelled = True


class ModelLoop:
    """What the product asks of the running loop."""

    def __init__(self, world):
        self.world = world
        self.timers = []
        self.ready = deque()
        self._count = 0

    def time(self):
        """Seconds of the steady clock."""
        return self.world.steady_ms / 1000

    def get_debug(self):
        """Futures ask."""
        return False

    def create_future(self):
        """A plain future of this loop."""
        return asyncio.Future(loop=self)

    def call_soon(self, callback, *args, context=None):
        """Call in this step of the schedule."""
        self.ready.append((callback, args))

    def call_later(self, delay_s, callback, *args, context=None):
        """Call when the virtual clock has come so far."""
        timer = Timer(callback, args)
        self._count += 1
        heapq.heappush(self.timers, (self.world.steady_ms + delay_s * 1000, self._count, timer))
        return timer

    def create_task(self, coroutine, *, name=None, context=None):
        """Step it beside the others; only `Worker` asks, to wake a blocked read."""
        return self.world.spawn(self.world.current, coroutine, name or "task")

    def fire(self):
        """Call the timers that are due, and all that is ready."""
        now_ms = self.world.steady_ms
        while self.timers and self.timers[0][0] <= now_ms:
            timer = heapq.heappop(self.timers)[2]
            if not timer.is_cancelled:
                timer.callback(*timer.args)
        while self.ready:
            callback, args = self.ready.popleft()
            callback(*args)


class Thread:
    """One coroutine of a process of the model.

    Attributes:
        process: Whose it is; its fate is shared.
        is_done: It has ended.
        error: What ended it, if that was an error that the product would not have met.
    """

    __slots__ = ("_ended", "coroutine", "error", "is_done", "name", "process", "result")

    def __init__(self, process, coroutine, name):
        self.process = process
        self.coroutine = coroutine
        self.name = name
        self.is_done = False
        self.error = self.result = None
        self._ended = []

    def add_done_callback(self, callback):
        """Call it once this has ended."""
        self._ended.append(callback)

    def done(self):
        """Whether it has ended, as tasks say it."""
        return self.is_done

    def cancel(self):
        """Only a drain asks, at whose end the process goes with all its threads."""

    def resume(self, value=None):
        """Go on with an answer until it waits again."""
        self._step(self.coroutine.send, value)

    def throw(self, error):
        """Go on with an error."""
        self._step(self.coroutine.throw, error)

    def _step(self, go, value):
        process = self.process
        if process.is_dead:
            return
        if process.is_paused:
            process.stalled.append((go, value, self))
            return
        world = process.world
        world.current = process
        try:
            waits_for = go(value)
        except StopIteration as end:
            self._end(end.value)
        except StoreError as error:  # `Service` and `Home` bear those
            self.result = error
            self._end(error)
        except Exception as error:
            self.error = error
            world.broken = world.broken or f"{self.name} failed: {error!r}"
            self._end(None)
        else:
            if waits_for.__class__ is Op:
                waits_for.thread = self
                waits_for.driver.sent.append(waits_for)
            elif waits_for is None:
                world.loop.call_soon(self.resume)
            else:
                waits_for._asyncio_future_blocking = False
                waits_for.add_done_callback(self._wake)

    def _wake(self, future):
        if future.cancelled():
            self.throw(asyncio.CancelledError())
        else:
            self.resume()

    def _end(self, result):
        self.is_done, self.result = True, result
        for callback in self._ended:
            callback(self)
