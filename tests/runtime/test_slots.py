"""Async bodies on the loop: slots that are used again, apart from each other, fair, cancellable and never stuck."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from streamwork import Context, Retry
from streamwork import context as contexts
from streamwork.wire.codec import unpacker
from streamwork.worker.slots import AsyncSlots
from tests.helpers import await_until
from tests.runtime.kit import Bench

unpack = unpacker(object)
where = contextvars.ContextVar("where", default="nowhere")


def run_with_slots(bench, main):
    async def all_of_it():
        slots = AsyncSlots(bench.runner, bench.numbers, bench.free)
        try:
            await main(slots)
        finally:
            await slots.close()

    asyncio.run(all_of_it())


async def through(bench, slots, *runs):
    """Submit and wait until every delivery has its outcome."""
    for run in runs:
        slots.submit(run)
    await await_until(lambda: all(bench.end_of(run) for run in runs), lambda: f"all ended: {bench.ends()}")


def test_bodies_run_and_free_their_slots(bench):
    @bench.app.task
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    async def main(slots):
        for _ in range(5):
            runs = [bench.admitted(double, n) for n in range(4)]
            await through(bench, slots, *runs)
            assert [unpack(bench.end_of(run).value) for run in runs] == [0, 2, 4, 6]
            assert (slots.queued, slots.running, sorted(bench.numbers)) == (0, 0, [0, 1, 2, 3])
        assert len(slots._tasks) <= 4

    run_with_slots(bench, main)
    assert bench.table.started() == []
    assert len(bench.freed) == 20
    assert contexts._by_task == {}


def test_as_many_bodies_wait_at_once_as_there_are_slots(bench):
    go = asyncio.Event()

    @bench.app.task
    async def hold() -> None:
        await go.wait()

    async def main(slots):
        runs = [bench.admitted(hold) for _ in range(4)]
        for run in runs:
            slots.submit(run)
        await await_until(lambda: slots.running == 4, "all four have begun")
        assert {started.entry for started in bench.table.started()} == {run.entry for run in runs}
        go.set()
        await await_until(lambda: len(bench.settled) == 4, "all four ended")

    run_with_slots(bench, main)


def test_a_context_variable_of_one_delivery_is_not_seen_by_the_next(bench):
    seen = []

    @bench.app.task
    async def visit(name: str) -> None:
        seen.append(where.get())
        where.set(name)
        await asyncio.sleep(0)
        seen.append(where.get())

    @bench.app.task(retry=None)
    async def visit_and_fail() -> None:
        where.set("failed")
        raise ValueError

    async def main(slots):
        await through(bench, slots, bench.admitted(visit, "a"))
        await through(bench, slots, bench.admitted(visit_and_fail))
        await through(bench, slots, bench.admitted(visit, "b"), bench.admitted(visit, "c"))

    run_with_slots(bench, main)
    assert seen[:2] == ["nowhere", "a"]
    assert sorted(seen[2:]) == ["b", "c", "nowhere", "nowhere"]


def test_what_the_program_set_before_the_worker_started_is_seen(bench):
    seen = []

    @bench.app.task
    async def visit() -> None:
        seen.append(where.get())

    async def main(slots):
        await through(bench, slots, bench.admitted(visit), bench.admitted(visit))

    token = where.set("program")
    try:
        run_with_slots(bench, main)
    finally:
        where.reset(token)
    assert seen == ["program", "program"]


def test_bodies_that_never_wait_let_others_have_a_turn():
    bench = Bench(100)
    turns = []

    @bench.app.task
    async def busy(n: int) -> None:
        turns.append("body")

    async def main(slots):
        async def other():
            while "end" not in turns:
                turns.append("other")
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        runs = [bench.admitted(busy, n) for n in range(96)]
        await through(bench, slots, *runs)
        turns.append("end")
        await beside

    run_with_slots(bench, main)
    # 32 bodies, then a turn for the others; by then a second slot helps, so at most 64 in a row.
    in_a_row = max(map(len, "".join(turn[0] for turn in turns).split("o")))
    assert 32 <= in_a_row <= 64


def test_the_time_limit_cancels_the_body_which_may_clean_up(bench):
    cleaned = []

    @bench.app.task(timeout=0.05, retry=None)
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(True)

    async def main(slots):
        run = bench.admitted(slow)
        await through(bench, slots, run)
        end = bench.end_of(run)
        assert (end.failure.type_name, end.failure.message) == ("TimeoutError", "not ended within 0.05 s")
        assert cleaned == [True]
        assert sorted(bench.numbers) == [0, 1, 2, 3]

    run_with_slots(bench, main)


def test_a_time_limit_that_is_kept_cancels_nothing_later(bench):
    @bench.app.task(timeout=0.05)
    async def quick() -> str:
        return "done"

    @bench.app.task
    async def slow() -> str:
        await asyncio.sleep(0.15)
        return "done"

    async def main(slots):
        runs = [bench.admitted(quick), bench.admitted(slow)]
        await through(bench, slots, *runs)
        assert [bench.end_of(run).state for run in runs] == ["succeeded", "succeeded"]

    run_with_slots(bench, main)


def test_cancel_leaves_no_outcome_and_begins_nothing_more(bench):
    began = []

    @bench.app.task
    async def hold(name: str) -> None:
        began.append(name)
        await asyncio.sleep(60)

    @bench.app.task
    async def pause() -> None:
        await asyncio.sleep(0.01)

    async def main(slots):
        await through(bench, slots, bench.admitted(pause), bench.admitted(pause))  # leaves two slots that wait for work
        bench.settled.clear()
        first = bench.admitted(hold, "first")
        slots.submit(first)
        await await_until(lambda: began, "it runs")
        late = bench.admitted(hold, "late")
        slots.submit(late)
        slots.cancel_all()
        await await_until(lambda: slots.running == 0, "it is cancelled")
        await asyncio.sleep(0.02)
        assert began == ["first"]
        assert (bench.settled, first.is_over, late.is_over) == ([], False, False)
        assert first.stop_reason == "released"

    run_with_slots(bench, main)


def test_a_body_that_ignores_its_cancellation_does_not_hold_the_end_up(bench):
    go = []

    @bench.app.task
    async def stubborn() -> None:
        while not go:
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                pass

    async def main(slots):
        slots.submit(bench.admitted(stubborn))
        await await_until(lambda: slots.running, "it runs")
        slots.cancel_all()
        await asyncio.wait_for(slots.close(), 5)
        assert slots.running == 1
        go.append(True)
        await await_until(lambda: not slots.running, "it ended by itself")

    run_with_slots(bench, main)


@pytest.mark.parametrize("is_waiting", [True, False])
def test_a_cancel_that_a_body_left_behind_does_not_stop_the_slots(bench, is_waiting):
    handles = []

    @bench.app.task
    async def leave_behind() -> None:
        handles.append(asyncio.current_task())

    @bench.app.task
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    async def main(slots):
        await through(bench, slots, bench.admitted(leave_behind))
        run = bench.admitted(add, 1, 2)
        if is_waiting:
            handles[0].cancel()
            await asyncio.sleep(0)
            slots.submit(run)
        else:
            slots.submit(run)  # wakes the slot that is then cancelled before it turns
            handles[0].cancel()
        await through(bench, slots)
        await await_until(lambda: bench.end_of(run), "it ran in another slot")
        assert unpack(bench.end_of(run).value) == 3
        more = [bench.admitted(add, n, 0) for n in range(4)]
        await through(bench, slots, *more)

    run_with_slots(bench, main)


def test_a_body_that_cancels_itself_has_an_outcome(bench):
    @bench.app.task(retry=None)
    async def give_up() -> None:
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    async def main(slots):
        run = bench.admitted(give_up)
        await through(bench, slots, run)
        assert bench.end_of(run).failure.type_name == "asyncio.exceptions.CancelledError"

    run_with_slots(bench, main)


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()], ids=repr
)
def test_what_is_no_exception_is_an_outcome_too(bench, error):
    @bench.app.task
    async def leave() -> None:
        raise error

    async def main(slots):
        run = bench.admitted(leave)
        await through(bench, slots, run)
        assert type(error).__name__ in bench.end_of(run).failure.type_name

    run_with_slots(bench, main)


def test_arguments_that_do_not_fit_here_are_a_dead_letter(bench):
    @bench.app.task(name="t")
    async def body(n: int) -> None: ...

    async def main(slots):
        run = bench.admitted("t", "not a number")
        await through(bench, slots, run)
        assert bench.end_of(run).failure.type_name == "streamwork.errors.ArgumentError"
        assert sorted(bench.numbers) == [0, 1, 2, 3]
        assert len(bench.freed) == 1

    run_with_slots(bench, main)


def test_a_body_knows_that_it_is_inside_a_delivery_also_without_asking_for_the_context(bench):
    seen = []

    @bench.app.task
    async def plain() -> None:
        seen.append(contexts.current().task_id)
        await asyncio.sleep(0)
        seen.append(contexts.current().task_id)
        # What it starts beside itself is not the delivery.
        seen.append(await asyncio.create_task(beside()))

    @bench.app.task
    async def asking(ctx: Context) -> None:
        assert contexts.current() is ctx

    async def beside():
        return contexts.current()

    async def main(slots):
        run, other = bench.admitted(plain), bench.admitted(asking)
        await through(bench, slots, run)
        await through(bench, slots, other)
        assert seen == [run.message.id, run.message.id, None]
        assert bench.end_of(other).state == "succeeded"

    run_with_slots(bench, main)


class Picky(type):
    """Exception types that ask before anything is compared with them."""

    def __instancecheck__(cls, instance):
        raise TypeError("compares with nothing")


class Odd(Exception, metaclass=Picky):
    pass


def test_a_policy_that_cannot_be_asked_is_a_dead_letter_and_the_slot_is_free(bench):
    @bench.app.task(retry=Retry(on=(Odd,)))
    async def fail() -> None:
        raise ValueError("boom")

    async def main(slots):
        runs = [bench.admitted(fail) for _ in range(6)]
        await through(bench, slots, *runs)
        for run in runs:
            end = bench.end_of(run)
            assert (end.op, end.letter.reason, end.failure.type_name) == ("D", "failed", "ValueError")
            assert "boom (and its retry policy: compares with nothing)" in end.failure.message
        assert (slots.running, sorted(bench.numbers), len(bench.freed)) == (0, [0, 1, 2, 3], 6)

    run_with_slots(bench, main)


def test_whatever_goes_wrong_in_settling_the_slot_is_free(bench, monkeypatch, caplog):
    @bench.app.task(retry=None)
    async def fail() -> None:
        raise ValueError

    @bench.app.task(name="t")
    async def typed(n: int) -> None: ...

    def refuse(*_):
        raise RuntimeError("not this one")

    async def main(slots):
        monkeypatch.setattr(bench.runner.endings, "dead", refuse)
        runs = [bench.admitted(fail), bench.admitted("t", "not a number")]
        for run in runs:
            slots.submit(run)
        await await_until(lambda: len(bench.freed) == 2, "both left their slots")
        assert (slots.running, sorted(bench.numbers), bench.settled) == (0, [0, 1, 2, 3], [])
        assert caplog.text.count("a delivery could not be settled") == 2
        monkeypatch.undo()
        await through(bench, slots, *[bench.admitted(fail) for _ in range(4)])

    run_with_slots(bench, main)


def test_arguments_whose_reading_ends_the_process_end_the_run_alone(bench, monkeypatch):
    @bench.app.task(retry=None)
    async def body() -> None: ...

    def leave(*_):
        raise SystemExit(3)

    async def main(slots):
        monkeypatch.setattr(body.signature, "decode", leave)
        run = bench.admitted(body)
        await through(bench, slots, run)
        assert bench.end_of(run).failure.type_name == "SystemExit"
        assert sorted(bench.numbers) == [0, 1, 2, 3]

    run_with_slots(bench, main)


def test_a_result_is_packed_while_its_delivery_has_the_slot(bench, monkeypatch):
    @bench.app.task
    async def body() -> int:
        return 7

    seen = []
    pack = body.signature.encode_result

    def look(value):
        seen.append((list(bench.freed), [one.entry for one in bench.table.started()]))
        return pack(value)

    async def main(slots):
        run = bench.admitted(body)
        slots.submit(run)
        await await_until(lambda: bench.settled, "it ended")
        assert seen == [([], [run.entry])]
        assert bench.freed == [run]

    monkeypatch.setattr(body.signature, "encode_result", look)
    run_with_slots(bench, main)


def test_a_result_that_cannot_be_settled_at_all_leaves_the_slot_free(bench, monkeypatch, caplog):
    @bench.app.task
    async def body() -> object:
        return object()

    def refuse(*_):
        raise RuntimeError("not this one")

    async def main(slots):
        slots.submit(bench.admitted(body))
        await await_until(lambda: bench.freed, "it left its slot")
        assert (slots.running, sorted(bench.numbers), bench.settled) == (0, [0, 1, 2, 3], [])
        assert "a delivery could not be settled" in caplog.text

    monkeypatch.setattr(bench.runner.endings, "dead", refuse)
    run_with_slots(bench, main)
