"""`app.inline()`: tasks run where they are enqueued, with the rules of production and without Redis."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import pickle
import threading
import time
import uuid
from pathlib import Path

import pytest

from streamwork import (
    ArgumentError,
    BodyTooLarge,
    Context,
    Reject,
    ResultGone,
    Retry,
    RetryLater,
    Skip,
    State,
    StoreUnavailable,
    Streamwork,
    TaskFailed,
    TaskNotFound,
)
from streamwork.context import current
from streamwork.errors import UseAsync
from streamwork.ids import new_task_id
from streamwork.testing import aassert_enqueued, assert_enqueued, enqueued


@dataclasses.dataclass
class Thumbnail:
    path: Path
    tags: set[str]


@pytest.fixture
def app():
    """An app whose Redis is not there: whatever reaches for it fails at once."""
    return Streamwork("inline", "redis://127.0.0.1:1/0", {"client.send_timeout_s": 0.0})


def test_a_task_runs_in_place_and_its_result_comes_back_typed(app):
    ran = []

    @app.task
    def shrink(path: Path, key: uuid.UUID, width: int = 640) -> Thumbnail:
        ran.append((path, key, width, threading.current_thread()))
        return Thumbnail(path / str(width), {"a"})

    key = uuid.uuid4()
    with app.inline():
        handle = shrink.enqueue(Path("/x"), key=key)
        assert ran == [(Path("/x"), key, 640, threading.current_thread())]
        assert handle.result() == Thumbnail(Path("/x/640"), {"a"})
        assert handle.state() == State.SUCCEEDED
        assert handle.wait()
        assert handle.cancel() == "ended"
    assert handle.result().tags == {"a"}


def test_the_result_is_decoded_as_over_redis_not_passed_by_reference(app):
    shared = {"n": 1}

    @app.task
    def give() -> dict[str, int]:
        return shared

    with app.inline():
        result = give.enqueue().result()
    assert result == shared
    assert result is not shared


def test_after_the_block_tasks_go_to_redis_again(app):
    @app.task
    def noop() -> None: ...

    with app.inline():
        noop.enqueue()
    with pytest.raises(StoreUnavailable):
        noop.enqueue()


def test_blocks_nest(app):
    @app.task
    def noop() -> None: ...

    with app.inline() as outer:
        with app.inline() as inner:
            noop.enqueue()
        noop.enqueue()
        noop.enqueue()
    assert (len(inner.sent), len(outer.sent)) == (1, 2)


def test_an_error_is_a_task_failed_with_its_text_and_traceback(app):
    @app.task(retry=None)
    def fail(n: int) -> None:
        raise KeyError(f"no {n}")

    with app.inline():
        handle = fail.enqueue(3)
        assert handle.state() == State.DEAD
        with pytest.raises(TaskFailed, match="no 3") as raised:
            handle.result()
    assert raised.value.type_name == "KeyError"
    assert raised.value.task_id == handle.id
    assert "raise KeyError" in raised.value.traceback


def test_retries_are_applied_without_waiting(app):
    attempts = []

    @app.task(retry=Retry(max_attempts=4, base=3600, jitter=False))
    async def flaky(until: int, ctx: Context) -> int:
        attempts.append((ctx.attempt, ctx.fence))
        if ctx.attempt < until:
            raise OSError
        return ctx.attempt

    began_s = time.monotonic()
    with app.inline() as inline:
        assert app.call(flaky.name, 3).enqueue().result() == 3
        with pytest.raises(TaskFailed, match="OSError"):
            app.call(flaky.name, 5).enqueue().result()
    assert time.monotonic() - began_s < 10
    assert [number for number, _ in attempts] == [1, 2, 3, 1, 2, 3, 4]
    assert len({fence for _, fence in attempts}) == 7
    assert [(sent.runs, sent.state) for sent in inline.sent] == [(3, State.SUCCEEDED), (4, State.DEAD)]


def test_the_messages_own_retry_counts(app):
    runs = []

    @app.task(retry=None)
    def fail() -> None:
        runs.append(1)
        raise OSError

    with app.inline(), pytest.raises(TaskFailed):
        fail.options(retry=Retry(max_attempts=2)).enqueue().result()
    assert len(runs) == 2


def test_steering_signals_end_as_over_redis(app):
    @app.task
    def steer(how: str, ctx: Context) -> str:
        if how == "later" and ctx.attempt == 1:
            raise RetryLater(60)
        if how != "later":
            raise {"skip": Skip("s"), "reject": Reject("not that")}[how]
        return "done"

    with app.inline():
        skipped = app.call(steer.name, "skip").enqueue()
        assert (skipped.result(), skipped.state()) == (None, State.SKIPPED)
        with pytest.raises(TaskFailed, match="not that"):
            app.call(steer.name, "reject").enqueue().result()
        assert app.call(steer.name, "later").enqueue().result() == "done"


def test_a_retry_later_without_end_is_given_up(app):
    @app.task(retry=None)
    def later() -> None:
        raise RetryLater(1)

    with app.inline(), pytest.raises(TaskFailed, match="1000 runs"):
        later.enqueue().result()


def test_bad_calls_fail_before_anything_runs(app):
    ran = []

    @app.task
    def take(n: int, text: str = "") -> None:
        ran.append(n)

    with app.inline() as inline:
        with pytest.raises(ArgumentError):
            take.enqueue("x")
        with pytest.raises(BodyTooLarge):
            take.enqueue(1, "x" * 2_000_000)
        with pytest.raises(TaskNotFound, match="elsewhere"):
            app.call("elsewhere").enqueue()
        assert inline.sent == []
    assert ran == []


def test_a_result_that_cannot_be_stored_is_a_failure(app):
    @app.task
    def odd() -> object:
        return threading.Lock()

    with app.inline(), pytest.raises(TaskFailed, match="Wire"):
        odd.enqueue().result()


def test_a_result_that_is_not_kept_is_gone(app):
    @app.task(keep=0)
    def noop() -> int:
        return 1

    with app.inline():
        handle = noop.enqueue()
        assert handle.wait()
        with pytest.raises(ResultGone):
            handle.result()


def test_the_context_tells_about_the_delivery(app):
    @app.task(queue="mail", tags={"gpu"})
    def tell(ctx: Context) -> list[str]:
        assert current() is ctx
        return [ctx.task_id, ctx.task_name, ctx.queue, ctx.lane, str(ctx.resources)]

    with app.inline(resources="pool"):
        handle = tell.enqueue()
    assert handle.result() == [handle.id, tell.name, "mail", "1:gpu", "pool"]
    assert current() is None


def test_a_task_enqueues_others_and_uses_their_results(app):
    @app.task
    async def leaf(n: int) -> int:
        return n + 1

    @app.task
    def plain(n: int, ctx: Context) -> int:
        value = leaf.enqueue(n).result()
        assert current() is ctx
        return value

    @app.task
    async def root(n: int) -> int:
        handles = await app.aenqueue_many([leaf.call(n), app.call(plain.name, n)])
        return sum([await handle for handle in handles])

    with app.inline() as inline:
        assert root.enqueue(1).result() == 4
        assert sum(handle.result() for handle in app.enqueue_many(leaf.call(i) for i in range(3))) == 6
    assert [sent.message.task for sent in inline.sent][:4] == [root.name, leaf.name, plain.name, leaf.name]


def test_from_async_code_bodies_run_on_the_loop_and_in_threads(app):
    @app.task
    async def on_loop() -> int:
        return id(asyncio.get_running_loop())

    @app.task
    def in_thread() -> tuple[int, int]:
        return threading.get_ident(), on_loop.enqueue().result()

    async def main():
        with app.inline():
            assert await (await on_loop.aenqueue()) == id(asyncio.get_running_loop())
            thread, loop = await (await in_thread.aenqueue()).aresult()
            assert thread != threading.get_ident()
            assert loop != id(asyncio.get_running_loop())
            await aassert_enqueued(on_loop)
            with pytest.raises(UseAsync):
                on_loop.enqueue()

    asyncio.run(main())


def test_bodies_do_not_see_each_others_context_variables(app):
    seen = contextvars.ContextVar("seen", default="clean")

    @app.task
    async def mark() -> str:
        before = seen.get()
        seen.set("dirty")
        return before

    @app.task
    def mark_plain() -> str:
        before = seen.get()
        seen.set("dirty")
        return before

    with app.inline():
        for task in (mark, mark_plain):
            assert [task.enqueue().result() for _ in range(2)] == ["clean", "clean"]
    assert seen.get() == "clean"


def test_the_time_limit_of_async_bodies_holds(app):
    @app.task(timeout=0.02, retry=None)
    async def slow() -> None:
        await asyncio.sleep(30)

    with app.inline(), pytest.raises(TaskFailed, match=r"not ended within 0\.02 s"):
        slow.enqueue().result()


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()], ids=repr)
def test_what_ends_a_body_without_an_exception_is_an_outcome_as_in_a_worker(app, error):
    @app.task
    def leave() -> None:
        raise error

    @app.task
    async def aleave() -> None:
        raise error

    async def main():
        with app.inline() as inline:
            for task in (leave, aleave):
                handle = await task.aenqueue()
                with pytest.raises(TaskFailed) as raised:
                    await handle
                assert type(error).__name__ in raised.value.type_name
            assert [sent.state for sent in inline.sent] == [State.DEAD] * 2

    asyncio.run(main())
    with app.inline() as inline:
        for task in (leave, aleave, leave, aleave):
            assert task.enqueue().state() == State.DEAD
        assert [(sent.runs, sent.state) for sent in inline.sent] == [(1, State.DEAD)] * 4


def test_a_test_that_is_cancelled_is_not_taken_for_a_body_that_is(app):
    begun = []

    @app.task(retry=None)
    async def hold() -> None:
        begun.append(True)
        await asyncio.sleep(30)

    async def main():
        with app.inline():
            waiting = asyncio.create_task(hold.aenqueue())
            while not begun:
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(main())


def test_no_limit_for_one_message_lifts_the_tasks(app):
    @app.task(timeout=0.02, retry=None)
    async def slow() -> str:
        await asyncio.sleep(0.06)
        return "ended"

    with app.inline():
        assert slow.options(timeout=None).enqueue().result() == "ended"
        with pytest.raises(TaskFailed, match="TimeoutError"):
            slow.options(timeout=None).options(timeout=0.02).enqueue().result()


def test_waiting_on_a_loop_names_the_twin_of_what_was_called(app):
    @app.task
    def noop() -> None: ...

    async def main():
        with app.inline():
            handle = await noop.aenqueue()
            with pytest.raises(UseAsync, match=r"^wait\(\) would block this event loop: use await await_\(\)"):
                handle.wait()
            with pytest.raises(UseAsync, match=r"^result\(\) .* aresult\(\)"):
                handle.result()
            assert await handle.await_()

    asyncio.run(main())


def test_what_is_no_exception_reaches_the_test(app):
    @app.task
    def stop() -> None:
        raise KeyboardInterrupt

    with app.inline(), pytest.raises(KeyboardInterrupt):
        stop.enqueue()


def test_what_was_sent_can_be_asserted_on(app):
    @app.task
    def note(text: str, times: int = 1) -> None: ...

    with app.inline():
        note.enqueue("a", times=2)
        assert assert_enqueued(note, ("a", 2)).args == ("a", 2)
        assert [found.task for found in enqueued(app)] == [note.name]
        with pytest.raises(AssertionError, match=r"note\('b'\) is not enqueued"):
            assert_enqueued(note, ("b",))


def test_a_handle_comes_by_its_id_too(app):
    @app.task
    def double(number: int) -> int:
        return 2 * number

    with app.inline():
        task_id = double.enqueue(4).id
        assert double.handle(task_id).result() == app.handle(task_id).result() == 8
        other = app.handle(new_task_id())
        assert other.state() == State.UNKNOWN
        with pytest.raises(ResultGone):
            other.result()


def test_a_handle_is_not_pickled_but_its_id_is(app):
    @app.task
    def double(number: int) -> int:
        return 2 * number

    with app.inline():
        handle = double.enqueue(4)
    with pytest.raises(TypeError, match=r"handle\.id .* task\.handle\(id\) or app\.handle\(id, queue\)"):
        pickle.dumps(handle)


def test_a_result_of_another_type_is_a_failure_as_in_a_worker(app):
    @app.task
    def double(number: int) -> int:
        return str(2 * number)  # type: ignore[return-value]

    with app.inline():
        handle = double.enqueue(4)
        assert handle.state() == State.DEAD
        with pytest.raises(TaskFailed, match=r"ResultTypeError: result of .*double: expected int, got str"):
            handle.result()
