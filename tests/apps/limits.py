"""An app whose bodies are cancelled, reach their limits, or ask for more time; what they saw stands in a file."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from streamwork import Context, Retry, SoftTimeout, Streamwork
from tests.apps.faults import Past, _note, _told

app = Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-limits"))

_LONG_S = 60.0
_AT_ONCE = Retry(max_attempts=3, base=0.0, jitter=False)


def _step(notes: Path, ctx: Context) -> Callable[[str], None]:
    return lambda text: _note(notes, text, ctx) and None


@app.task(retry=_AT_ONCE)
async def hold(notes: Path, text: str, ctx: Context) -> Past:
    """Hold until told; note a cancellation, and that the clean-up went to its end."""
    past, note = _note(notes, text, ctx), _step(notes, ctx)
    try:
        while not _told(notes, text):
            await asyncio.sleep(0.005)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    finally:
        await asyncio.sleep(0.05)
        note("cleaned")
    return past


@app.task(retry=_AT_ONCE)
def hold_in_thread(notes: Path, text: str, ctx: Context) -> Past:
    past, note = _note(notes, text, ctx), _step(notes, ctx)
    try:
        while not _told(notes, text):
            time.sleep(0.005)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    finally:
        note("cleaned")
    return past


@app.task(retry=_AT_ONCE, executor="process")
def hold_in_process(notes: Path, text: str, ctx: Context) -> Past:
    past = _note(notes, text, ctx)
    while not _told(notes, text):
        time.sleep(0.005)
    return past


@app.task(retry=_AT_ONCE)
async def ignore(notes: Path, text: str, ctx: Context) -> Past:
    """Take no notice of cancellations until told."""
    past, note = _note(notes, text, ctx), _step(notes, ctx)
    while not _told(notes, text):
        try:
            await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            note("ignored")
    return past


@app.task(retry=_AT_ONCE)
async def clean_up_badly(notes: Path, text: str, ctx: Context) -> None:
    _note(notes, text, ctx)
    try:
        await asyncio.sleep(_LONG_S)
    finally:
        raise ValueError("in the clean-up")


@app.task(retry=Retry(max_attempts=2, base=0.0, jitter=False), timeout=1.0, executor="process")
def sleep_in_process(notes: Path, text: str, ctx: Context) -> None:
    _note(notes, text, ctx)
    time.sleep(_LONG_S)


@app.task(retry=None, soft_timeout=0.2, timeout=30)
async def soft(notes: Path, text: str, ctx: Context) -> str:
    note = _step(notes, ctx)
    note(text)
    try:
        await asyncio.sleep(_LONG_S)
    except SoftTimeout as error:
        note("soft")
        await asyncio.sleep(0.05)
        return f"saved: {error.code}"
    return "slept"


@app.task(retry=None, soft_timeout=0.2, timeout=30)
def soft_in_thread(notes: Path, text: str, ctx: Context) -> str:
    note = _step(notes, ctx)
    note(text)
    try:
        while True:
            time.sleep(0.005)
    except SoftTimeout as error:
        note("soft")
        time.sleep(0.05)
        return f"saved: {error.code}"


@app.task(retry=None, soft_timeout=0.2, timeout=30, executor="process")
def soft_in_process(notes: Path, text: str, ctx: Context) -> str:
    note = _step(notes, ctx)
    note(text)
    try:
        time.sleep(_LONG_S)
    except SoftTimeout as error:
        note("soft")
        time.sleep(0.05)
        return f"saved: {error.code}"
    return "slept"


@app.task(retry=Retry(max_attempts=2, base=0.0, jitter=False))
async def soft_unheeded(notes: Path, text: str, ctx: Context) -> None:
    """Let the soft limit be the failure, out of a task group."""
    _note(notes, text, ctx)
    async with asyncio.TaskGroup() as group:
        group.create_task(_noted_end(notes, ctx))


async def _noted_end(notes: Path, ctx: Context) -> None:
    try:
        await asyncio.sleep(_LONG_S)
    finally:
        _note(notes, "child", ctx)


@app.task(retry=None, timeout=0.5)
async def extend(notes: Path, text: str, ctx: Context) -> float:
    _note(notes, text, ctx)
    return await _ask_for_more(ctx)


async def _ask_for_more(ctx: Context) -> float:
    began = time.monotonic()
    while time.monotonic() < began + 1.5:
        ctx.extend(0.5)
        await asyncio.sleep(0.05)
    return time.monotonic() - began


@app.task(retry=None, timeout=0.5)
def extend_in_thread(notes: Path, text: str, ctx: Context) -> float:
    return _ask_for_more_here(notes, text, ctx)


@app.task(retry=None, timeout=0.5, executor="process")
def extend_in_process(notes: Path, text: str, ctx: Context) -> float:
    return _ask_for_more_here(notes, text, ctx)


def _ask_for_more_here(notes: Path, text: str, ctx: Context) -> float:
    _note(notes, text, ctx)
    began = time.monotonic()
    while time.monotonic() < began + 1.5:
        ctx.extend(0.5)
        time.sleep(0.05)
    return time.monotonic() - began


@app.task(retry=None, timeout=0.3, executor="process")
def extend_once_in_process(notes: Path, text: str, ctx: Context) -> None:
    """Ask once, and then hang all the same."""
    _note(notes, text, ctx)
    ctx.extend(1.0)
    time.sleep(_LONG_S)


@app.task(retry=None, timeout=30)
async def extend_by_nonsense(notes: Path, text: str, ctx: Context) -> list[str]:
    _note(notes, text, ctx)
    told = []
    for nonsense in (0, -1, float("nan"), None, "1", True, 0.0001, 1e10):
        try:
            ctx.extend(nonsense)  # type: ignore[arg-type]
        except Exception as error:
            told.append(type(error).__name__)
    return told


@app.task(retry=Retry(max_attempts=3, base=0.0, jitter=False))
async def fail_twice(notes: Path, text: str, ctx: Context) -> tuple[int, str]:
    _note(notes, text, ctx)
    if ctx.attempt < 3:
        raise ValueError(f"attempt {ctx.attempt}")
    try:
        await asyncio.sleep(_LONG_S)
    except SoftTimeout:
        return ctx.attempt, ctx.lane
    return 0, ""
