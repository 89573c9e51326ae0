"""The app of the fault driver: bodies of every kind that write down what they do, outside Redis.

Each returns a text that no other run returns, so a result that changed, or belongs to another run, is seen. `declare`
puts the tasks on any app, under the names they have here: producers are apps of their own.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import signal
import threading
import time
from pathlib import Path

from streamwork import Context, Retry, Streamwork
from streamwork.ids import random_id
from tests.faults.history import History

_folder = os.environ.get("STREAMWORK_TEST_HISTORY", "")
_history = History(_folder) if _folder else None

# A gate is a file of this folder that lets the held bodies go on.
GATES = "gates"


def _begin(label: str, ctx: Context) -> None:
    _history.write("started", label, ctx.task_id, attempt=ctx.attempt, crashes=ctx.crashes, entry=ctx.fence)


def _effect(label: str, ctx: Context, **facts: object) -> str:
    value = f"{label}/{random_id(32)}"
    _history.write("effect", label, ctx.task_id, attempt=ctx.attempt, value=value, **facts)
    return value


def _may_go(label: str) -> bool:
    gates = Path(_folder, GATES)
    return (gates / "all").exists() or (gates / label).exists() or (gates / str(os.getpid())).exists()


async def quick(label: str, ctx: Context) -> str:
    _begin(label, ctx)
    return _effect(label, ctx)


async def slow(label: str, seconds: float, ctx: Context) -> str:
    _begin(label, ctx)
    await asyncio.sleep(seconds)
    return _effect(label, ctx)


def threaded(label: str, seconds: float, ctx: Context) -> str:
    _begin(label, ctx)
    time.sleep(seconds)
    return _effect(label, ctx)


async def stubborn(label: str, failures: int, ctx: Context) -> str:
    """Fail so many times before it succeeds."""
    _begin(label, ctx)
    if ctx.attempt <= failures:
        raise ValueError(f"attempt {ctx.attempt} fails")
    return _effect(label, ctx)


async def counted(label: str, seconds: float, failures: int, ctx: Context) -> str:
    """Fail so many times, and say when it is left, however that comes."""
    _begin(label, ctx)
    try:
        await asyncio.sleep(seconds)
        if ctx.attempt <= failures:
            raise ValueError(f"attempt {ctx.attempt} fails")
        return _effect(label, ctx)
    finally:
        _history.write("ended", label, ctx.task_id, attempt=ctx.attempt)


async def counted_held(label: str, ctx: Context) -> str:
    """Wait at the gate, and say when it is left, however that comes."""
    _begin(label, ctx)
    try:
        while not _may_go(label):
            await asyncio.sleep(0.01)
        return _effect(label, ctx)
    finally:
        _history.write("ended", label, ctx.task_id, attempt=ctx.attempt)


def boxed(label: str, seconds: float, ctx: Context) -> str:
    """Run in a process that can be killed."""
    _begin(label, ctx)
    time.sleep(seconds)
    return _effect(label, ctx)


async def held(label: str, ctx: Context) -> str:
    """Wait at the gate; the effect comes behind it."""
    _begin(label, ctx)
    while not _may_go(label):
        await asyncio.sleep(0.01)
    return _effect(label, ctx)


def held_in_thread(label: str, ctx: Context) -> str:
    _begin(label, ctx)
    while not _may_go(label):
        time.sleep(0.01)
    return _effect(label, ctx)


def held_in_box(label: str, ctx: Context) -> str:
    _begin(label, ctx)
    while not _may_go(label):
        time.sleep(0.01)
    return _effect(label, ctx)


async def grip(label: str, seconds: float, ctx: Context) -> str:
    """Keep the interpreter lock, on the loop; the proof is what another thread missed."""
    _begin(label, ctx)
    return _effect(label, ctx, gap_s=_grip(seconds))


def grip_in_thread(label: str, seconds: float, ctx: Context) -> str:
    _begin(label, ctx)
    return _effect(label, ctx, gap_s=_grip(seconds))


def _grip(seconds: float) -> float:
    looks, is_over = [time.monotonic()], threading.Event()

    def look() -> None:
        while not is_over.wait(0.01):
            looks.append(time.monotonic())

    watcher = threading.Thread(target=look)
    watcher.start()
    time.sleep(0.05)  # the watcher is at it
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    time.sleep(0.05)
    is_over.set()
    watcher.join()
    return max(later - one for one, later in itertools.pairwise(looks))


async def deadly(label: str, how: str, times: int, ctx: Context) -> str:
    """Take the process along so many times, by ``exit`` or ``kill``, once whatever may run beside it has begun."""
    _begin(label, ctx)
    if ctx.crashes < times:
        await asyncio.sleep(0.2)
        _die(how)
    return _effect(label, ctx)


def deadly_in_thread(label: str, how: str, times: int, ctx: Context) -> str:
    _begin(label, ctx)
    if ctx.crashes < times:
        _die(how)
    return _effect(label, ctx)


def deadly_in_box(label: str, how: str, times: int, ctx: Context) -> str:
    _begin(label, ctx)
    if ctx.crashes < times:
        _die(how)
    return _effect(label, ctx)


def _die(how: str) -> None:
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


def glutton(label: str, times: int, ctx: Context) -> str:
    """Take memory until the kernel takes the process, so many times."""
    _begin(label, ctx)
    taken = []
    while ctx.crashes < times:
        if len(taken) > 250:
            raise MemoryError("a gigabyte is taken, and nobody minds")
        taken.append(bytearray(4 << 20))
        taken[-1][::4096] = b"x" * 1024  # only a page that was written to is memory
    return _effect(label, ctx)


BODIES = (
    (quick, {}),
    (slow, {}),
    (threaded, {}),
    (stubborn, {"retry": Retry(max_attempts=5, base=0.05, max_delay=0.2)}),
    (counted, {"retry": Retry(max_attempts=5, base=0.05, max_delay=0.2)}),
    (counted_held, {}),
    (boxed, {"executor": "process"}),
    (held, {}),
    (held_in_thread, {}),
    (held_in_box, {"executor": "process"}),
    (grip, {}),
    (grip_in_thread, {}),
    (deadly, {}),
    (deadly_in_thread, {}),
    (deadly_in_box, {"executor": "process"}),
    (glutton, {}),
)


def declare(app: Streamwork) -> Streamwork:
    """Declare the tasks on an app, but those that STREAMWORK_TEST_LACKS names, as an older version would."""
    lacks = os.environ.get("STREAMWORK_TEST_LACKS", "").split(",")
    for body, options in BODIES:
        if body.__name__ not in lacks:
            app.task(name=f"ledger.{body.__name__}", **options)(body)
    return app


app = declare(Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-ledger")))
