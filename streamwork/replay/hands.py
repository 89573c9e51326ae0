"""Threads that run bodies one by one, and processes that run those which may take theirs along."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection as Channel
from typing import Any, NoReturn

import msgspec

from streamwork.model.replay import Ran
from streamwork.replay.body import Delivery, arun_here, crashed, judged, run_here, timed_out
from streamwork.replay.capture import Capture
from streamwork.task import Task
from streamwork.wire.message import TaskMessage

_pack, _unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Ran).decode
_read_order = msgspec.msgpack.Decoder(tuple[TaskMessage, str, str, int, int, str]).decode


class Threads:
    """Threads that are used again, since bodies keep connections by thread; as many as are asked for at once."""

    def __init__(self) -> None:
        self._idle: list[queue.SimpleQueue[Callable[[], None] | None]] = []

    async def run(self, work: Callable[[], Ran], limit_s: float | None) -> Ran:
        """Run something in a thread; raises TimeoutError at the limit, and then its thread is abandoned."""
        loop, hand = asyncio.get_running_loop(), self._hand()
        done: asyncio.Future[Ran] = loop.create_future()

        def tell(ran: Ran | None, error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error is not None else done.set_result(ran)  # type: ignore[arg-type]

        def serve() -> None:
            ran: Ran | None = None
            wrong: BaseException | None = None
            try:
                ran = work()
            except BaseException as error:  # noqa: BLE001 - told where it is awaited
                wrong = error
            try:
                loop.call_soon_threadsafe(tell, ran, wrong)
            except RuntimeError:
                return  # the loop is closed: an abandoned thread has ended at last

        hand.put(serve)
        async with asyncio.timeout(limit_s):
            ran = await done
        self._idle.append(hand)
        return ran

    def _hand(self) -> queue.SimpleQueue[Callable[[], None] | None]:
        if self._idle:
            return self._idle.pop()
        work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=_serve, args=(work,), name="streamwork-replay", daemon=True).start()
        return work

    def close(self) -> None:
        """Let idle threads end."""
        while self._idle:
            self._idle.pop().put(None)


def _serve(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (one := work.get()) is not None:
        one()


class Processes:
    """Forked processes, one body at a time in each; a killed or broken one is replaced.

    Args:
        tasks: The app's.
        capture: What takes their sends; each process has a copy of its own.
    """

    def __init__(self, tasks: Mapping[str, Task[..., Any]], capture: Capture) -> None:
        self._tasks, self._capture = tasks, capture
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._lock = threading.Lock()

    def run(self, delivery: Delivery) -> Ran:
        """Run a body in a process, from a thread; one that does not end in time is killed."""
        with self._lock:
            child = self._idle.pop() if self._idle else None
            if child is None:
                child = _Child(self._tasks, self._capture, self._all)
                self._all.add(child)
        ran = child.run(delivery)
        with self._lock:
            if child.is_gone:
                self._all.discard(child)
            else:
                self._idle.append(child)
        return ran

    def close(self) -> None:
        """End them, whatever they do."""
        with self._lock:
            for child in self._all:
                child.end()
            self._all.clear()
            self._idle.clear()


class _Child:
    def __init__(self, tasks: Mapping[str, Task[..., Any]], capture: Capture, others: set[_Child]) -> None:
        self.is_gone = False
        self.channel, there = Pipe()
        with warnings.catch_warnings():
            # Python warns of a fork beside threads: none of theirs is needed in this child.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            self.channel.close()
            for other in others:  # or one would not hear that this process has ended
                other.channel.close()
            _live(there, tasks, capture)
        there.close()

    def run(self, delivery: Delivery) -> Ran:
        begun_s, limit_s = time.perf_counter(), delivery.timeout_s
        try:
            self.channel.send_bytes(_pack((delivery.message, *delivery[2:])))
            if self.channel.poll(limit_s):
                return _unpack(self.channel.recv_bytes())
        except (OSError, EOFError, ValueError):
            return crashed(self.end(), (time.perf_counter() - begun_s) * 1000)
        self.end()
        return judged(delivery, None, timed_out(limit_s), (limit_s or 0) * 1000, Capture())

    def end(self) -> str:
        """Kill it, and say how it had ended before."""
        if self.is_gone:
            return ""
        self.is_gone = True
        self.channel.close()
        evidence = _ended(self._pid, 0.2)
        if not evidence:
            os.kill(self._pid, signal.SIGKILL)
            evidence = _ended(self._pid, None)
        return evidence


def _ended(pid: int, within_s: float | None) -> str:
    give_up_s = None if within_s is None else time.monotonic() + within_s
    while True:
        found, status = os.waitpid(pid, os.WNOHANG if give_up_s is not None else 0)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return f"its process was killed by signal {-code}" if code < 0 else f"its process ended with status {code}"
        if give_up_s is not None and time.monotonic() > give_up_s:
            return ""
        time.sleep(0.002)


def _live(channel: Channel, tasks: Mapping[str, Task[..., Any]], capture: Capture) -> NoReturn:
    """Run one body after another until the parent is gone; never returns to what was forked."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            message, queue_name, lane, attempt, crashes, how = _read_order(channel.recv_bytes())
            task = tasks[message.task]
            delivery = Delivery(task, message, queue_name, lane, attempt, crashes, how)
            ran = asyncio.run(arun_here(delivery, capture)) if task.is_async else run_here(delivery, capture)
            channel.send_bytes(_pack(ran))
    except EOFError:
        status = 0
    finally:
        os._exit(status)
