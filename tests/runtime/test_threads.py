"""Plain bodies in threads: apart from each other, enough threads for bodies that block, and no place is lost."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest

from streamwork import Retry
from streamwork import context as contexts
from streamwork.wire.codec import unpacker
from streamwork.worker import threads as threads_room
from streamwork.worker.threads import ThreadExecutor
from tests.helpers import await_until, wait_until
from tests.runtime.kit import Bench

unpack = unpacker(object)
where = contextvars.ContextVar("where", default="nowhere")


def ours():
    """Return the threads of executors that live."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("streamwork-task-")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Each test ends its threads, so that the next can count."""
    yield
    wait_until(lambda: not ours(), lambda: f"all threads ended: {ours()}")


def run_with_threads(bench, main, most=4):
    async def all_of_it():
        threads = ThreadExecutor(bench.runner, bench.numbers, bench.free, most)
        try:
            await main(threads)
        finally:
            threads.close()

    asyncio.run(all_of_it())


async def all_ended(bench, *runs):
    await await_until(lambda: all(bench.end_of(run) for run in runs), lambda: f"all ended: {bench.ends()}")


def test_bodies_run_beside_the_loop_and_free_their_slots(bench):
    @bench.app.task
    def double(n: int) -> tuple[int, str]:
        return 2 * n, threading.current_thread().name

    async def main(threads):
        for _ in range(5):
            runs = [bench.admitted(double, n) for n in range(4)]
            for run in runs:
                threads.submit(run)
            await all_ended(bench, *runs)
            values = [unpack(bench.end_of(run).value) for run in runs]
            assert [value[0] for value in values] == [0, 2, 4, 6]
            assert all(value[1].startswith("streamwork-task-") for value in values)
        assert (threads.queued, sorted(bench.numbers), bench.table.started()) == (0, [0, 1, 2, 3], [])

    run_with_threads(bench, main)
    assert len(bench.freed) == 20


def test_bodies_that_block_soon_have_a_thread_each(monkeypatch):
    monkeypatch.setattr(threads_room, "_PATIENCE_S", 0.1)
    bench = Bench(100)
    go = threading.Event()

    @bench.app.task
    def block() -> None:
        go.wait(20)

    async def main(threads):
        runs = [bench.admitted(block) for _ in range(100)]
        for run in runs:
            threads.submit(run)
        # Doubling takes 6 patiences, 0.6 s; one thread after another would take 98.
        await await_until(lambda: len(bench.table.started()) == 100, lambda: f"{len(bench.table.started())} began", 4.9)
        go.set()
        await all_ended(bench, *runs)

    run_with_threads(bench, main, most=100)


def test_no_more_threads_than_allowed_and_the_rest_waits_its_turn():
    bench = Bench(10)
    go = threading.Event()
    order = []

    @bench.app.task
    def block(n: int) -> None:
        order.append(n)
        go.wait(20)

    async def main(threads):
        runs = [bench.admitted(block, n) for n in range(10)]
        for run in runs:
            threads.submit(run)
        await await_until(lambda: len(order) == 3, "three began")
        await asyncio.sleep(0.05)
        assert (len(order), threads.queued) == (3, 7)
        go.set()
        await all_ended(bench, *runs)

    run_with_threads(bench, main, most=3)
    assert sorted(order) == list(range(10))


def test_a_context_variable_of_one_delivery_is_not_seen_by_the_next(bench):
    seen = []

    @bench.app.task
    def visit(name: str) -> None:
        seen.append(where.get())
        where.set(name)

    async def main(threads):
        for name in "abcdef":
            run = bench.admitted(visit, name)
            threads.submit(run)
            await all_ended(bench, run)

    run_with_threads(bench, main, most=1)
    assert seen == ["nowhere"] * 6


def test_at_the_time_limit_the_thread_is_abandoned_and_its_place_is_taken_by_another(bench):
    go = threading.Event()
    threads_seen = []

    @bench.app.task(timeout=0.1, retry=None)
    def hang() -> None:
        threads_seen.append(threading.current_thread())
        go.wait(20)

    @bench.app.task
    def ident() -> int:
        return threading.get_ident()

    async def main(threads):
        stuck, waiting = bench.admitted(hang), bench.admitted(ident)
        threads.submit(stuck)
        await await_until(lambda: threads_seen, "it hangs")
        threads.submit(waiting)
        await all_ended(bench, stuck, waiting)
        end = bench.end_of(stuck)
        assert (end.failure.type_name, end.failure.message) == ("TimeoutError", "not ended within 0.1 s")
        assert unpack(bench.end_of(waiting).value) != threads_seen[0].ident
        assert sorted(bench.numbers) == [0, 1, 2, 3]
        go.set()
        await await_until(lambda: not threads_seen[0].is_alive(), "the abandoned thread ends")
        await asyncio.sleep(0)
        assert len(bench.settled) == 2
        # Again and again: the bound of one thread still holds one place.
        for _ in range(3):
            again = bench.admitted(ident)
            threads.submit(again)
            await all_ended(bench, again)

    run_with_threads(bench, main, most=1)


def test_a_body_that_ends_at_its_time_limit_costs_no_thread(bench):
    @bench.app.task(timeout=0.02)
    def close_call() -> None:
        time.sleep(0.0195)

    async def main(threads):
        for _ in range(30):
            run = bench.admitted(close_call)
            threads.submit(run)
            await all_ended(bench, run)
        # However each of them ended, one place is left, and one thread for it.
        await await_until(lambda: len(ours()) <= 1, lambda: f"no thread is left over: {ours()}")
        assert threads._threads in {0, 1}

    run_with_threads(bench, main, most=1)


def test_what_waits_is_forgotten_and_what_was_given_back_does_not_begin(bench):
    go = threading.Event()
    began = []

    @bench.app.task
    def hold(name: str) -> None:
        began.append(name)
        go.wait(20)

    async def main(threads):
        first, second, third = (bench.admitted(hold, name) for name in ("first", "second", "third"))
        threads.submit(first)
        await await_until(lambda: began, "it runs")
        threads.submit(second)
        threads.forget_queued()
        assert threads.queued == 0
        threads.submit(third)
        third.is_over = True  # as the drain marks what it gives back
        go.set()
        await all_ended(bench, first)
        threads.close()
        await await_until(lambda: not ours(), "threads end")
        assert began == ["first"]

    run_with_threads(bench, main, most=1)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_whatever_a_body_raises_is_its_outcome_and_the_thread_goes_on(bench, error):
    @bench.app.task(retry=None)
    def leave() -> None:
        raise error

    @bench.app.task
    def add(a: int, b: int) -> int:
        return a + b

    async def main(threads):
        run, after = bench.admitted(leave), bench.admitted(add, 1, 2)
        threads.submit(run)
        threads.submit(after)
        await all_ended(bench, run, after)
        assert bench.end_of(run).failure.type_name == type(error).__name__
        assert unpack(bench.end_of(after).value) == 3

    run_with_threads(bench, main, most=1)


def test_arguments_that_do_not_fit_here_are_a_dead_letter(bench):
    @bench.app.task(name="t")
    def body(n: int) -> None: ...

    async def main(threads):
        run = bench.admitted("t", "not a number")
        threads.submit(run)
        await all_ended(bench, run)
        assert bench.end_of(run).failure.type_name == "streamwork.errors.ArgumentError"
        assert sorted(bench.numbers) == [0, 1, 2, 3]

    run_with_threads(bench, main)


def test_a_body_knows_that_it_is_inside_a_delivery_also_without_asking_for_the_context(bench):
    @bench.app.task
    def plain() -> str:
        return contexts.current().task_id

    async def main(threads):
        for _ in range(2):
            run = bench.admitted(plain)
            threads.submit(run)
            await all_ended(bench, run)
            assert unpack(bench.end_of(run).value) == run.message.id

    run_with_threads(bench, main)


class Picky(type):
    """Exception types that ask before anything is compared with them."""

    def __instancecheck__(cls, instance):
        raise TypeError("compares with nothing")


class Odd(Exception, metaclass=Picky):
    pass


def test_a_policy_that_cannot_be_asked_is_a_dead_letter_and_the_place_is_free(bench):
    @bench.app.task(retry=Retry(on=(Odd,)), timeout=0.05)
    def fail(seconds: float) -> None:
        time.sleep(seconds)
        raise ValueError("boom")

    async def main(threads):
        runs = [bench.admitted(fail, seconds) for seconds in (0, 0.3, 0, 0.3, 0, 0)]
        for run in runs:
            threads.submit(run)
        await all_ended(bench, *runs)
        ends = [bench.end_of(run) for run in runs]
        assert {end.letter.reason for end in ends} == {"failed"}
        assert [end.failure.type_name for end in ends] == [
            "ValueError", "TimeoutError", "ValueError", "TimeoutError", "ValueError", "ValueError",
        ]  # fmt: skip
        assert all("its retry policy: compares with nothing" in end.failure.message for end in ends)
        assert (sorted(bench.numbers), len(bench.freed)) == ([0, 1, 2, 3], 6)

    run_with_threads(bench, main)


def test_whatever_goes_wrong_in_settling_the_place_is_free(bench, monkeypatch, caplog):
    @bench.app.task(retry=None, timeout=0.05)
    def fail(seconds: float) -> None:
        time.sleep(seconds)
        raise ValueError

    def refuse(*_):
        raise RuntimeError("not this one")

    async def main(threads):
        monkeypatch.setattr(bench.runner.endings, "dead", refuse)
        for run in [bench.admitted(fail, seconds) for seconds in (0, 0, 0.3)]:
            threads.submit(run)
        await await_until(lambda: len(bench.freed) == 3, "all left their places")
        assert (sorted(bench.numbers), bench.settled) == ([0, 1, 2, 3], [])
        assert caplog.text.count("a delivery could not be settled") == 3
        monkeypatch.undo()
        runs = [bench.admitted(fail, 0.0) for _ in range(4)]
        for run in runs:
            threads.submit(run)
        await all_ended(bench, *runs)

    run_with_threads(bench, main)


def test_arguments_whose_reading_ends_the_process_end_the_run_alone(bench, monkeypatch):
    @bench.app.task(retry=None)
    def body() -> None: ...

    def leave(*_):
        raise SystemExit(3)

    async def main(threads):
        monkeypatch.setattr(body.signature, "decode", leave)
        run = bench.admitted(body)
        threads.submit(run)
        await all_ended(bench, run)
        assert bench.end_of(run).failure.type_name == "SystemExit"

    run_with_threads(bench, main)
