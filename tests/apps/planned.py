"""An app whose schedules are what the environment says; each run of a body is a line of a file."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import redis

from streamwork import Context, Streamwork

app = Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-planned"))

NOTES = Path(os.environ.get("STREAMWORK_TEST_NOTES", os.devnull))


def _server_ms() -> int:
    with redis.Redis.from_url(os.environ["STREAMWORK_URL"]) as server:
        seconds, micros = server.time()
    return seconds * 1000 + micros // 1000


def _note(text: str, ctx: Context, server_ms: int = 0) -> None:
    at = ctx.scheduled_at
    fact = {
        "text": text, "schedule": ctx.schedule, "id": ctx.task_id, "server_ms": server_ms,
        "at_ms": None if at is None else round(at.timestamp() * 1000),
    }  # fmt: skip
    with NOTES.open("a") as file:
        file.write(json.dumps(fact) + "\n")


@app.task
def tick(text: str, ctx: Context) -> None:
    _note(text, ctx, _server_ms())


@app.task
async def hold(text: str, ctx: Context) -> None:
    """Hold until the file `<notes>.go` is there; note a cancellation."""
    _note(text, ctx)
    try:
        while not NOTES.with_suffix(".go").exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        _note("cancelled", ctx)
        raise


@app.task(retry=None)
async def fail(text: str, ctx: Context) -> None:
    _note(text, ctx)
    raise ValueError(text)


for _item in os.environ.get("STREAMWORK_TEST_SCHEDULES", "").split():
    _name, _, _text = _item.partition(":")
    app.every(1, name=_name, args=(_text or _name,), missed="all")(tick)
