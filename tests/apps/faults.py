"""An app whose tasks hold, die and freeze on demand; what they did stands in a file, one line per run."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from streamwork import Context, Retry, Streamwork

app = Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-faults"))

Past = tuple[int, int]


def _note(notes: Path, text: str, ctx: Context) -> Past:
    # One write of an O_APPEND file: lines of many processes never mix.
    with notes.open("a") as file:
        file.write(f"{text} {os.getpid()} {ctx.attempt} {ctx.crashes}\n")
    return ctx.attempt, ctx.crashes


def _told(notes: Path, text: str) -> bool:
    """Whether all, this process or this task may go on; raises where it is told to."""
    for path in (notes.with_suffix(end) for end in (".go", f".go-{os.getpid()}", f".go-{text}")):
        if path.exists():
            if path.read_text() == "raise":
                raise ValueError("told to")
            return True
    return False


@app.task
async def nothing(number: int = 0) -> int:
    return number


@app.task
async def wait(seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.task
async def note(notes: Path, text: str, ctx: Context, seconds: float = 0.0) -> Past:
    past = _note(notes, text, ctx)
    await asyncio.sleep(seconds)
    return past


@app.task(retry=Retry(max_attempts=5, base=0.0))
async def hold(notes: Path, text: str, ctx: Context) -> Past:
    """Note the run, then wait until the test lets all, or this process, go on."""
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


@app.task
async def hold_interpreter(notes: Path, text: str, seconds: float, ctx: Context) -> Past:
    """Keep loop and interpreter lock to itself, as a C extension may: nothing else of this process runs."""
    past = _note(notes, text, ctx)
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return past


@app.task
def hold_interpreter_in_thread(notes: Path, text: str, seconds: float, ctx: Context) -> Past:
    past = _note(notes, text, ctx)
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return past


@app.task
async def poison(notes: Path, text: str, how: str, others: int, ctx: Context) -> None:
    """Once the others have begun too, take the process along."""
    _note(notes, text, ctx)
    while len(notes.read_text().splitlines()) <= others:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # whatever may run beside it has begun by now
    ctx.log.warning("about to end: %s", how)
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(executor="process")
def die_in_process(notes: Path, text: str, ctx: Context) -> None:
    _note(notes, text, ctx)
    os._exit(7)


@app.task(tags={"backend"})
async def backend(number: int) -> int:
    return number


@app.task(tags={"frontend"})
async def frontend(number: int) -> int:
    return number


@app.task(tags={"backend", "gpu"})
async def backend_gpu(number: int) -> int:
    return number


@app.task(retry=None)
async def unstorable() -> Any:
    return object()


@app.task(retry=None)
async def typed(number: int) -> int:
    return number
