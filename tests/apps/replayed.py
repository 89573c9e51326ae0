"""An app whose code changes between then and now: by the variable REPLAYED_CODE, "old" or "new"."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from streamwork import Context, Retry, Streamwork

app = Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-replayed"))
RETRIES = {"tries": Retry(max_attempts=3, base=0.01, jitter=False)}


def is_new() -> bool:
    return os.environ.get("REPLAYED_CODE") == "new"


@app.task(retry=None)
def order(number: int, currency: str) -> dict[str, Any]:
    if currency == "CHF" and not is_new():
        raise KeyError(currency)
    if is_new() and number == 2:
        raise ZeroDivisionError("two")
    return {"number": number, "price": 1_000 if is_new() and number in (1, 4, 5) else 100}


@app.task(retry=None)
async def agreed(number: int) -> int:
    await asyncio.sleep(0)
    return number


@app.task(retry=None)
def sender(number: int) -> str:
    agreed.enqueue(number)
    app.enqueue_many([agreed.call(number + 1)])
    return "sent"


@app.task(retry=None)
async def asker(number: int) -> int:
    return await (await agreed.aenqueue(number))


@app.task(retry=None)
def killer() -> None:
    os._exit(3)


@app.task(executor="process", retry=None)
def split(text: str) -> set[str]:
    return set(text.split())


@app.task(retry=None, timeout=0.3)
def timed() -> None:
    if is_new():
        time.sleep(2)
    raise LookupError("at once")


@app.task(retry=RETRIES["tries"])
def tries(ctx: Context, times: int) -> int:
    if ctx.attempt < times:
        raise ValueError(f"{ctx.task_id} attempt {ctx.attempt} {ctx.replay}")
    return ctx.attempt


@app.task(retry=None)
def slow() -> str:
    time.sleep(0.3 if is_new() else 0)
    return "done"


@app.task(retry=None)
def pause_it(really: bool) -> None:
    if is_new():
        app.pause(queue="default")
