"""An app for the life of a worker: bodies that hold in every executor, end in odd ways, and see their context."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streamwork import Context, Retry, RetryLater, Streamwork
from tests.apps.faults import Past, _note, _told

app = Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-life"))

# What `weigh` keeps, so that the process grows.
kept: list[bytearray] = []


@app.lifespan
@asynccontextmanager
async def lifespan() -> AsyncIterator[dict[str, int]]:
    """Do as files in the working folder say: hang or raise at the start, linger at the end, note it."""
    if Path("lifespan.hang").exists():
        await asyncio.sleep(3600)
    if Path("lifespan.raise").exists():
        raise OSError("no database")
    yield {"pid": os.getpid()}
    if Path("lifespan.raise_at_the_end").exists():
        raise OSError("no goodbye")
    if Path("lifespan.linger").exists():
        await asyncio.sleep(3600)
    if Path("pyproject.toml").exists():
        return  # started in the checkout itself
    with Path("lifespan.ended").open("a") as file:
        file.write(f"{os.getpid()}\n")


@app.task
async def pid() -> int:
    return os.getpid()


@app.task
async def work(seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@app.task
async def hold(notes: Path, text: str, ctx: Context) -> Past:
    past = _note(notes, text, ctx)
    while not _told(notes, text):
        await asyncio.sleep(0.01)
    return past


@app.task
def hold_in_thread(notes: Path, text: str, ctx: Context) -> Past:
    past = _note(notes, text, ctx)
    while not _told(notes, text):
        time.sleep(0.01)
    return past


@app.task(executor="process")
def hold_in_process(notes: Path, text: str, ctx: Context) -> Past:
    past = _note(notes, text, ctx)
    while not _told(notes, text):
        time.sleep(0.01)
    return past


@app.task
async def hold_stubbornly(notes: Path, text: str, ctx: Context) -> Past:
    """Take no notice of being cancelled."""
    past = _note(notes, text, ctx)
    while not _told(notes, text):
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass
    return past


@app.task
async def hold_in_a_thread_of_its_own(notes: Path, text: str, ctx: Context) -> Past:
    """Wait for a thread of the loop's pool, which nobody can stop."""
    past = _note(notes, text, ctx)
    await asyncio.to_thread(_until_told, notes, text)
    return past


@app.task
async def hold_the_loop(notes: Path, text: str, ctx: Context) -> Past:
    past = _note(notes, text, ctx)
    _until_told(notes, text)
    return past


def _until_told(notes: Path, text: str) -> None:
    while not _told(notes, text):
        time.sleep(0.01)


@app.task(executor="process", timeout=0.5, retry=None)
def hang_in_process(notes: Path, text: str, ctx: Context) -> None:
    _note(notes, text, ctx)
    time.sleep(3600)


@app.task(executor="process")
def die_in_process(notes: Path, text: str, ctx: Context) -> None:
    _note(notes, text, ctx)
    os._exit(7)


@app.task
async def leave_a_child_behind(notes: Path, text: str, ctx: Context) -> Past:
    """In the first run fork a process that lives on, and die."""
    past = _note(notes, text, ctx)
    if ctx.crashes == 0:
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        notes.with_suffix(".child").write_text(str(child))
        os._exit(9)
    return past


@app.task
async def die_after_the_end(notes: Path, text: str, ctx: Context) -> Past:
    """Take the process along once the body has ended, before its outcome can be written."""
    asyncio.get_running_loop().call_soon(os._exit, 9)
    return _note(notes, text, ctx)


@app.task
async def cancel_everything(notes: Path, text: str, ctx: Context) -> Past:
    past = _note(notes, text, ctx)
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)
    return past


@app.task
async def weigh(megabytes: int) -> int:
    """Keep so much memory."""
    kept.append(bytearray(os.urandom(1)) * (megabytes * 1_048_576))
    return os.getpid()


class Locked(Exception):
    """It cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Base(BaseException):
    pass


class Demanding(Exception):
    """It cannot be made again from its own arguments, which is how exceptions are unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def _raise(kind: str) -> None:
    made: dict[str, Any] = {
        "locked": Locked,
        "mute": Mute,
        "base": lambda: Base("base"),
        "demanding": lambda: Demanding("a", "b"),
        "exit": lambda: SystemExit(3),
        "interrupt": KeyboardInterrupt,
        "generator": GeneratorExit,
        "cancelled": asyncio.CancelledError,
        "surrogate": lambda: ValueError("\udcff"),
        "endless": lambda: RetryLater(float("inf")),
        "group": lambda: ExceptionGroup("two", [Mute(), Locked()]),
        "timeout": lambda: TimeoutError("own"),
        "recursion": lambda: RecursionError("deep"),
    }
    error = made[kind]()
    raise error


@app.task(retry=None)
async def odd(kind: str) -> None:
    _raise(kind)


@app.task(retry=None)
def odd_in_thread(kind: str) -> None:
    _raise(kind)


@app.task(retry=None, executor="process")
def odd_in_process(kind: str) -> None:
    _raise(kind)


@app.task(retry=None)
async def give(what: str) -> Any:
    return {"object": object(), "large": b"x" * 3_000_000, "small": "x", "surrogate": "\ud800"}[what]


@app.task(retry=None, executor="process")
def give_in_process(what: str) -> Any:
    return {"object": object(), "small": "x", "surrogate": "\ud800"}[what]


Facts = dict[str, Any]


def _facts(ctx: Context[Any]) -> Facts:
    return {
        "task_id": ctx.task_id,
        "task_name": ctx.task_name,
        "queue": ctx.queue,
        "lane": ctx.lane,
        "attempt": ctx.attempt,
        "crashes": ctx.crashes,
        "fence": ctx.fence,
        "resources": ctx.resources,
        "lost": ctx.lease_lost,
        "pid": os.getpid(),
    }


@app.task(retry=Retry(max_attempts=2, base=0.0))
async def facts(number: int, ctx: Context[dict[str, int]], *, note: str = "") -> Facts:
    if ctx.attempt == 1:
        raise ValueError("again")
    return {**_facts(ctx), "number": number, "note": note}


@app.task(retry=Retry(max_attempts=2, base=0.0))
def facts_in_thread(number: int, ctx: Context[dict[str, int]], *, note: str = "") -> Facts:
    if ctx.attempt == 1:
        raise ValueError("again")
    return {**_facts(ctx), "number": number, "note": note}


@app.task(retry=Retry(max_attempts=2, base=0.0), executor="process")
def facts_in_process(number: int, ctx: Context[dict[str, int]], *, note: str = "") -> Facts:
    if ctx.attempt == 1:
        raise ValueError("again")
    return {**_facts(ctx), "number": number, "note": note}


def _end_program() -> int:
    program = subprocess.Popen(["sleep", "60"])
    program.terminate()
    try:
        return program.wait(20)
    finally:
        program.kill()


@app.task
def end_program() -> int:
    return _end_program()


@app.task(executor="process")
def end_program_in_process() -> int:
    return _end_program()
