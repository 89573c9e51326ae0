"""Limits and ends of single runs, executor by executor: who is cut, who is not, and that the slot is free again."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from streamwork import Context, SoftTimeout
from streamwork.wire.message import Options
from streamwork.worker import slots as slots_room
from streamwork.worker.drain import Hand
from streamwork.worker.intake import Intake
from tests.helpers import await_until, wait_until
from tests.runtime.test_slots import run_with_slots, through
from tests.runtime.test_threads import all_ended, ours, run_with_threads


def began(run):
    """Whether its body has begun."""
    return run.started_at_ms > 0


def end_text(bench, run):
    """Return how a delivery ended, and what its failure says."""
    (item,) = [item for other, item in bench.settled if other is run]
    return bench.read(item).op[0], bench.read(item).state


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_body_that_ignores_its_hard_limit_is_left_behind_and_its_slot_is_free(bench, monkeypatch, is_cancelled):
    monkeypatch.setattr(slots_room, "_IGNORED_S", 0.05)
    go, ended = [], []

    @bench.app.task(timeout=0.1, retry=None)
    async def stubborn() -> int:
        while not go:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass
        ended.append(True)
        return 1

    @bench.app.task
    async def other() -> int:
        return 2

    async def main(slots):
        run = bench.admitted(stubborn)
        slots.submit(run)
        if is_cancelled:
            await await_until(lambda: began(run), "it runs")
            slots.terminate(run)
        await await_until(lambda: bench.settled, "it is left behind")
        assert end_text(bench, run) == (("C", "cancelled") if is_cancelled else ("D", "dead"))
        assert (slots.running, bench.freed) == (0, [run])
        await through(bench, slots, bench.admitted(other))
        go.append(True)
        await await_until(lambda: ended, "its body ends at last")
        await asyncio.sleep(0)
        assert len(bench.settled) == 2
        assert (slots.running, sorted(bench.numbers)) == (0, [0, 1, 2, 3])

    run_with_slots(bench, main)


def test_what_no_slot_has_begun_is_withdrawn_and_what_runs_is_not(bench):
    @bench.app.task
    async def body() -> None:
        await asyncio.sleep(60)

    async def main(slots):
        first = bench.admitted(body)
        slots.submit(first)
        assert slots.withdraw(first)
        second = bench.admitted(body)
        slots.submit(second)
        await await_until(lambda: began(second), "it runs")
        assert not slots.withdraw(second)
        assert not began(first)

    run_with_slots(bench, main)


def test_a_soft_limit_reaches_the_body_not_the_slot_and_the_hard_one_still_counts(bench):
    seen = []

    @bench.app.task(soft_timeout=0.05, timeout=0.3, retry=None)
    async def body() -> None:
        try:
            async with asyncio.timeout(60):
                await asyncio.sleep(60)
        except SoftTimeout:
            seen.append(asyncio.current_task().cancelling())
            await asyncio.sleep(60)

    async def main(slots):
        run = bench.admitted(body)
        await through(bench, slots, run)
        assert bench.end_of(run).failure.message == "not ended within 0.3 s"
        assert seen == [0]

    run_with_slots(bench, main)


def test_a_message_without_soft_limit_and_one_above_its_hard_limit_have_none(bench):
    @bench.app.task(soft_timeout=0.05, retry=None)
    async def body() -> str:
        await asyncio.sleep(0.15)
        return "whole"

    async def main(slots):
        own = [Options(soft_ms=0), Options(soft_ms=20_000, timeout_ms=10_000)]
        runs = [bench.admitted(body, options=options) for options in own]
        await through(bench, slots, *runs)
        assert [bench.end_of(run).op for run in runs] == ["S", "S"]

    run_with_slots(bench, main)


def test_a_cancel_in_the_turn_of_the_soft_limit_counts_more(bench):
    seen = []

    @bench.app.task(soft_timeout=60, retry=None)
    async def body() -> None:
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            seen.append(type(error))
            raise

    async def main(slots):
        run = bench.admitted(body)
        slots.submit(run)
        await await_until(lambda: began(run), "it runs")
        slots._soften(run)
        slots.terminate(run)
        await await_until(lambda: bench.settled, "it ended")
        assert seen == [asyncio.CancelledError]
        assert end_text(bench, run) == ("C", "cancelled")

    run_with_slots(bench, main)


def test_a_thread_that_blocks_is_left_behind_at_once_and_ends_when_it_can(bench):
    go = threading.Event()
    told = []

    @bench.app.task(retry=None)
    def block() -> None:
        try:
            go.wait(20)
            told.append("went on")
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    @bench.app.task
    def other() -> str:
        return threading.current_thread().name

    async def main(threads):
        run = bench.admitted(block)
        threads.submit(run)
        await await_until(lambda: began(run), "it runs")
        threads.terminate(run)
        await all_ended(bench, run)
        assert (bench.freed, told) == ([run], [])
        second = bench.admitted(other)
        threads.submit(second)  # the only thread there may be is taken by the first
        await all_ended(bench, second)
        go.set()
        await await_until(lambda: told == ["cancelled"] and len(ours()) == 1, "the thread ends")
        assert len(bench.settled) == 2

    run_with_threads(bench, main, most=1)


def test_what_is_raised_in_a_thread_never_reaches_its_next_delivery(bench):
    """Bodies that end at about their soft limit: whatever is late must not hit the one behind."""

    @bench.app.task(soft_timeout=0.004, retry=None)
    def close_to_it() -> None:
        until = time.monotonic() + 0.004
        while time.monotonic() < until:
            pass

    @bench.app.task(retry=None)
    def innocent() -> None:
        for _ in range(300):
            time.monotonic()

    async def main(threads):
        hit = 0
        for _ in range(150):
            runs = [bench.admitted(close_to_it), bench.admitted(innocent)]
            for run in runs:
                threads.submit(run)
            await all_ended(bench, *runs)
            assert bench.end_of(runs[1]).op == "S"
            hit += bench.end_of(runs[0]).op != "S"
        assert threads._threads == 1
        assert sorted(bench.numbers) == [0, 1, 2, 3]
        return hit

    run_with_threads(bench, main, most=1)


def test_more_time_may_be_asked_for_from_a_thread_and_never_shortens_the_limit(bench):
    @bench.app.task(timeout=0.2, retry=None)
    def body(ctx: Context) -> None:
        ctx.extend(0.001)
        ctx.extend(0.6)
        time.sleep(0.4)

    async def main(threads):
        run = bench.admitted(body)
        threads.submit(run)
        await all_ended(bench, run)
        assert bench.end_of(run).op == "S"

    run_with_threads(bench, main)
    wait_until(lambda: not ours(), "the thread ended")


def test_what_is_cancelled_while_redis_is_asked_whether_it_may_begin_does_not(bench):
    @bench.app.task
    async def body() -> None: ...

    submitted = []
    intake = Intake(Hand(), bench.table, 4, None)
    intake.runner, intake.executors = (
        bench.runner,
        SimpleNamespace(submit=submitted.append, cancel_run=lambda *_, **__: None),
    )
    intake.consumer = SimpleNamespace(poke=lambda: None)
    kept, dropped = bench.admitted(body), bench.admitted(body)
    intake.cancelled(bench.queue, [dropped.message.id])
    for run in (kept, dropped):
        intake.begin(run)
    assert submitted == [kept]
    assert end_text(bench, dropped) == ("C", "cancelled")


def test_outside_of_a_worker_there_is_nothing_to_extend():
    Context().extend(5)
