"""An app for worker processes in tests; its namespace comes from the test that starts them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

from streamwork import Context, Reject, Retry, RetryLater, Skip, Streamwork

app = Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-basic"))


@app.task
async def add(a: int, b: int) -> int:
    return a + b


@app.task
def add_in_thread(a: int, b: int) -> int:
    return a + b


@app.task(executor="process")
def add_in_process(a: int, b: int) -> int:
    return a + b


@app.task
async def where() -> int:
    return os.getpid()


@app.task
async def sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.task
def sleep_in_thread(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task(executor="process")
def sleep_in_process(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task
async def note(path: Path, text: str, seconds: float = 0.0) -> int:
    """Append a line to a file when it starts, so that tests can count runs; then wait."""
    with path.open("a") as file:
        file.write(f"{text} {os.getpid()}\n")
    await asyncio.sleep(seconds)
    return os.getpid()


@app.task
def note_in_thread(path: Path, text: str, seconds: float = 0.0) -> int:
    with path.open("a") as file:
        file.write(f"{text} {os.getpid()}\n")
    time.sleep(seconds)
    return os.getpid()


@app.task(retry=None)
async def fail(text: str = "no") -> None:
    raise ValueError(text)


@app.task(retry=Retry(max_attempts=3, base=0.05, jitter=False))
async def fail_until(attempt: int, ctx: Context) -> int:
    if ctx.attempt < attempt:
        raise ValueError(f"attempt {ctx.attempt}")
    return ctx.attempt


@app.task
async def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
async def steer(how: str) -> None:
    raise {"skip": Skip("not needed"), "reject": Reject("not wanted"), "later": RetryLater(0.05)}[how]


@app.task(timeout=0.2, retry=None)
async def slow() -> None:
    await asyncio.sleep(30)


@app.task
def thread_name() -> str:
    return threading.current_thread().name


@app.task
async def modules() -> list[str]:
    return list(sys.modules)
