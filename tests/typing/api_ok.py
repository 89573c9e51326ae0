"""Calls that mypy --strict and pyright must accept, with the types that users see; never run, only checked."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

from streamwork import (
    Call,
    Context,
    DeadDone,
    DeadRecord,
    Handle,
    HistoryGap,
    HistoryRecord,
    Reject,
    Retry,
    State,
    Streamwork,
    Task,
    TaskFailed,
)
from streamwork.task import AsyncTask, SyncTask
from streamwork.testing import Drained, assert_enqueued, run_until_idle

app = Streamwork("shop", settings={"worker.slots": 20})


@dataclass
class Thumbnail:
    path: Path
    width: int


@dataclass
class Pool:
    size: int


@app.lifespan
@asynccontextmanager
async def resources() -> AsyncIterator[Pool]:
    yield Pool(3)


@Streamwork("other").lifespan
async def plain_resources() -> AsyncIterator[Pool]:
    yield Pool(3)


@app.task(queue="mail", tags={"backend"}, retry=Retry(max_attempts=5), timeout=30)
async def send_receipt(order_id: int, to: str) -> str:
    return f"{order_id} {to}"


@app.task
def resize(path: Path, width: int = 640) -> Thumbnail:
    return Thumbnail(path, width)


@app.task
async def nightly() -> None: ...


@app.task
async def with_context(ctx: Context[Pool], order_id: int, *, note: str = "") -> float:
    assert_type(ctx.resources, Pool)
    ctx.log.info("attempt %s of %s", ctx.attempt, ctx.task_id)
    return float(order_id)


@app.task(executor="process", keep=dt.timedelta(hours=1), retry=None, priority=9)
def plain_with_context(ctx: Context, order_id: int) -> list[str]:
    assert_type(ctx.resources, None)
    return [str(order_id)]


@app.task
def with_optional_context(ctx: Context[Pool] | None, order_id: int) -> int:
    return order_id


@app.task
def with_any_context(ctx: Context[Any], order_id: int) -> int:
    """Accepted, but mypy gives up on overloads where an argument has Any in it; pyright knows the types."""
    return order_id


@app.task
def takes_a_map(values: dict[str, Any], times: int = 1) -> int:
    return times


@app.task
def takes_an_object(value: object, times: int) -> int:
    """A first parameter that a context would fit too is an argument all the same."""
    return times


@app.task
def with_rest(first: int, /, *rest: str, flag: bool = False) -> set[int]:
    return {first}


@app.task(retry=[Retry(on=OSError, base=dt.timedelta(seconds=1)), Retry(on=[ValueError, KeyError], max_attempts=1)])
async def rejects(reason: str) -> None:
    raise Reject(reason)


async def a_lifespan_is_a_context_manager() -> None:
    async with plain_resources() as pool:
        assert_type(pool, Pool)


def tasks_keep_their_signature() -> None:
    assert_type(send_receipt.enqueue(7, "a@b.c"), Handle[str])
    assert_type(send_receipt.handle("0198"), Handle[str])
    assert_type(app.handle("0198", "mail"), Handle[Any])
    assert_type(send_receipt.enqueue(7, to="a@b.c"), Handle[str])
    assert_type(send_receipt.delay(7, "a@b.c"), Handle[str])
    assert_type(resize.enqueue(Path("x")), Handle[Thumbnail])
    assert_type(resize.enqueue(path=Path("x"), width=3), Handle[Thumbnail])
    assert_type(nightly.enqueue(), Handle[None])
    assert_type(with_context.enqueue(7, note="x"), Handle[float])
    assert_type(plain_with_context.enqueue(7), Handle[list[str]])
    assert_type(with_optional_context.enqueue(7), Handle[int])
    with_any_context.enqueue(7)
    assert_type(takes_a_map.enqueue({"a": [1, None]}), Handle[int])
    assert_type(takes_an_object.enqueue("x", 2), Handle[int])
    assert_type(takes_an_object.enqueue(value=[], times=2), Handle[int])
    assert_type(with_rest.enqueue(1, "a", "b", flag=True), Handle[set[int]])


def handles_give_the_result() -> None:
    handle = resize.enqueue(Path("x"))
    assert_type(handle.result(timeout=10), Thumbnail)
    assert_type(handle.result(timeout=dt.timedelta(seconds=1)).path, Path)
    assert_type(handle.state(), State)
    assert_type(handle.wait(1.5), bool)
    assert_type(handle.cancel(), str)
    assert_type(handle.id, str)
    try:
        handle.result()
    except TaskFailed as error:
        assert_type(error.traceback, str)


async def async_twins() -> None:
    assert_type(await send_receipt.aenqueue(7, "a@b.c"), Handle[str])
    assert_type(await (await send_receipt.aenqueue(7, "a@b.c")), str)
    assert_type(await (await with_context.aenqueue(7)).aresult(5), float)
    assert_type(await app.aenqueue_many([nightly.call(), nightly.call()]), list[Handle[None]])
    assert_type(await (await nightly.aenqueue()).astate(), State)


async def a_direct_call_just_runs_the_function() -> None:
    assert_type(await send_receipt(7, "a@b.c"), str)
    assert_type(resize(Path("x"), 3), Thumbnail)
    assert_type(await with_context(7), float)
    assert_type(plain_with_context(7), list[str])


def calls_and_options() -> None:
    assert_type(send_receipt.call(7, "a@b.c"), Call[str])
    assert_type(send_receipt.options(priority=8, keep=0, timeout=dt.timedelta(minutes=1)).enqueue(7, "x"), Handle[str])
    assert_type(send_receipt.options(retry=None, tags=["gpu"]).call(7, "x").enqueue(), Handle[str])
    assert_type(send_receipt.options(retry=Retry(2), timeout=None, keep=None).enqueue(7, "x"), Handle[str])
    assert_type(Retry().base, float)
    assert_type(Retry().on, tuple[type[BaseException], ...])
    orders = [(1, "a"), (2, "b")]
    assert_type(app.enqueue_many(send_receipt.call(i, to) for i, to in orders), list[Handle[str]])
    assert_type(app.call("billing.close_month", 2026, 11).enqueue(), Handle[Any])


def kinds() -> None:
    one: AsyncTask[[int, str], str] = send_receipt
    two: SyncTask[[], Any] | Task[..., Any] = resize
    everything: list[Task[..., Any]] = [one, two, nightly, with_context, rejects]
    assert everything
    sent: Handle[object] = send_receipt.enqueue(1, "x")
    assert sent


@app.on_dead
def tell(letter: DeadRecord) -> None:
    assert_type(letter.args, list[Any] | None)


@app.on_dead
async def atell(letter: DeadRecord) -> None:
    assert_type(letter.traceback, str)


async def dead_letters() -> None:
    for letter in app.dead("mail", task=send_receipt, since=dt.timedelta(hours=2), where="order_id == 7"):
        assert_type(letter, DeadRecord)
        assert_type(app.edit_dead(letter.id, {"to": "a@b.c"}, "mail"), DeadRecord)
    async for one in app.adead(reason=["failed", "lost"]):
        assert_type(await app.aedit_dead(one.id, {"to": "a@b.c"}), DeadRecord)
    assert_type(app.retry_dead("mail", dry_run=True, limit=5), DeadDone)
    assert_type(await app.aretry_dead(id=["x"]), DeadDone)
    assert_type(app.purge_dead(until=90 * 86_400.0).refused, dict[str, str])
    assert_type(await app.apurge_dead(), DeadDone)


def testing() -> None:
    with app.inline(resources=Pool(1)) as inline:
        nightly.enqueue()
        assert_type(inline.sent[0].state, State)
    assert_type(run_until_idle(app, raise_failures=False), Drained)
    assert_enqueued(send_receipt, (7,), {"to": "a@b.c"}, within_s=1)


async def history() -> None:
    for found in app.history(
        "mail", task=send_receipt, state=["dead", "retried"], since=dt.timedelta(hours=2), limit=5
    ):
        if isinstance(found, HistoryGap):
            assert_type(found.until_ms, int)
        else:
            assert_type(found, HistoryRecord)
            assert_type(found.args, list[Any] | None)
    async for one in app.ahistory(where="order_id == 7", follow=True, tags={"gpu"}):
        assert_type(one, HistoryRecord | HistoryGap)
