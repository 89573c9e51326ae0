"""`run_until_idle`: a real worker in this process, and nothing left when it returns."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streamwork import Context, Retry, RetryLater, Skip, State, TaskFailed
from streamwork.clock import SYSTEM_CLOCK
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.testing import Drained, ManualClock, arun_until_idle, enqueued, run_until_idle
from tests.helpers import body_of, seed, state_of
from tests.redis.kit import later


def test_an_idle_app_is_left_at_once(app):
    @app.task
    def noop() -> None: ...

    # Nothing ends the worker's read of a minute but that it is told to leave.
    drain = later(lambda: run_until_idle(app, settings={"worker.block_s": 60}))
    assert drain(20) == Drained()


def test_it_runs_async_and_plain_bodies_and_what_they_enqueue(app, driver, namespace):
    seen = []

    @app.task(queue="second")
    def leaf(n: int) -> None:
        seen.append((n, threading.current_thread() is threading.main_thread()))

    @app.task
    async def root(n: int) -> int:
        for i in range(n):
            await leaf.aenqueue(i)
        return n

    @app.task
    def from_thread() -> None:
        leaf.enqueue(9)

    handle = root.enqueue(3)
    from_thread.enqueue()
    assert run_until_idle(app) == Drained(succeeded=6)
    assert sorted(seen) == [(0, False), (1, False), (2, False), (9, False)]
    assert handle.result(timeout=1) == 3
    for queue in ("default", "second"):
        left = state_of(driver, QueueKeys(namespace, queue))
        assert (left.backlog, left.consumers, left.returned) == (0, set(), set())


def test_retries_run_without_their_delays(app):
    attempts = []

    @app.task(retry=Retry(max_attempts=3, base=3600, jitter=False))
    async def flaky(ctx: Context) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise OSError(f"attempt {ctx.attempt}")
        return ctx.attempt

    handle = flaky.enqueue()
    assert run_until_idle(app) == Drained(succeeded=1, retried=2)
    assert attempts == [1, 2, 3]
    assert handle.result(timeout=1) == 3


def test_what_is_due_later_runs_in_its_order(app, driver, namespace):
    seen = []

    @app.task
    async def note(n: int) -> None:
        seen.append(n)

    now_ms = SYSTEM_CLOCK.now_ms()
    for n in (3, 1, 2):
        seed(driver, QueueKeys(namespace, "default"), body_of(note.name, n), due_at_ms=now_ms + n * 3_600_000)
    assert run_until_idle(app, settings={"worker.slots": 1}) == Drained(succeeded=3)
    assert seen == [1, 2, 3]


def test_with_a_clock_only_what_is_due_by_it_runs(app, driver, namespace):
    @app.task(retry=Retry(max_attempts=2, base=500, jitter=False))
    async def note(n: int) -> None:
        if n == 2:
            raise OSError

    clock = ManualClock()
    for n in (1, 2, 3):
        seed(driver, QueueKeys(namespace, "default"), body_of(note.name, n), due_at_ms=clock.now_ms() + n * 1000_000)
    assert run_until_idle(app, clock=clock) == Drained()
    clock.advance(2000)
    # The retry of the second is due 500 s later by the same clock.
    assert run_until_idle(app, clock=clock) == Drained(succeeded=1, retried=1)
    assert sorted((one.args[0], one.due_at_ms) for one in enqueued(app)) == [
        (2, clock.now_ms() + 500_000),
        (3, clock.now_ms() + 1_000_000),
    ]
    journal = state_of(driver, QueueKeys(namespace, "default")).journal
    assert {record.ended_at_ms for record in journal} == {clock.now_ms()}
    clock.advance(600)
    assert run_until_idle(app, clock=clock, raise_failures=False) == Drained(dead=1)


def test_the_first_failure_is_raised_once_all_has_run(app):
    seen = []

    @app.task(retry=None)
    async def maybe(n: int) -> None:
        seen.append(n)
        if n in {1, 3}:
            raise ValueError(f"no {n}")

    handles = [maybe.enqueue(n) for n in range(5)]
    with pytest.raises(TaskFailed, match="ValueError: no 1") as raised:
        run_until_idle(app, settings={"worker.slots": 1})
    assert raised.value.task_id == handles[1].id
    assert "raise ValueError" in raised.value.traceback
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert handles[3].state() == State.DEAD


def test_failures_are_counted_where_they_are_not_raised(app):
    @app.task(retry=None)
    async def fail() -> None:
        raise ValueError

    @app.task
    async def skip() -> None:
        raise Skip("no")

    fail.enqueue()
    skip.enqueue()
    assert run_until_idle(app, raise_failures=False) == Drained(skipped=1, dead=1)


def test_all_tags_and_priorities_are_served(app):
    @app.task(tags={"gpu"})
    async def draw() -> None: ...

    draw.enqueue()
    draw.options(tags={"gpu", "eu"}, priority=9).enqueue()
    draw.options(tags={"tpu"}, priority=0).enqueue()
    assert run_until_idle(app) == Drained(succeeded=3)


def test_a_lane_that_appears_on_the_way_is_served(app):
    @app.task
    async def leaf() -> None: ...

    @app.task
    async def root() -> None:
        await leaf.options(tags={"late"}, priority=9).aenqueue()

    root.enqueue()
    assert run_until_idle(app) == Drained(succeeded=2)


def test_queues_that_only_options_name_are_drained_also_when_they_appear_on_the_way(app, driver, namespace):
    @app.task
    async def leaf(depth: int) -> None:
        if depth:
            await leaf.options(queue=f"deep-{depth}").aenqueue(depth - 1)

    leaf.options(queue="elsewhere").enqueue(2)
    assert run_until_idle(app) == Drained(succeeded=3)
    for queue in ("elsewhere", "deep-2", "deep-1"):
        assert state_of(driver, QueueKeys(namespace, queue)).backlog == 0


def test_only_the_queues_that_the_settings_name_are_drained(app):
    @app.task
    async def leaf() -> None: ...

    leaf.enqueue()
    leaf.options(queue="elsewhere").enqueue()
    assert run_until_idle(app, settings={"worker.queues": ["elsewhere"]}) == Drained(succeeded=1)
    assert [one.queue for one in enqueued(app)] == ["default"]


def test_a_lane_whose_stream_was_deleted_does_not_keep_it_waiting(app, driver, namespace):
    @app.task
    async def note() -> None: ...

    note.enqueue()
    driver.run(plain("DEL", QueueKeys(namespace, "default").lane("1:")))
    note.options(priority=9).enqueue()
    assert run_until_idle(app, within_s=10) == Drained(succeeded=1)


def test_messages_for_other_apps_stay(app, driver, namespace):
    @app.task
    async def noop() -> None: ...

    noop.enqueue()
    app.call("elsewhere.task", 1).enqueue()
    assert run_until_idle(app) == Drained(succeeded=1, retried=1)
    (left,) = enqueued(app)
    assert (left.task, left.args) == ("elsewhere.task", (1,))


def test_garbage_is_a_failure(app, driver, namespace):
    @app.task
    async def noop() -> None: ...

    seed(driver, QueueKeys(namespace, "default"), b"garbage")
    with pytest.raises(TaskFailed, match="DecodeError"):
        run_until_idle(app)


def test_what_never_ends_is_given_up_and_stays(app, driver, namespace):
    @app.task
    async def hang() -> None:
        await asyncio.sleep(3600)

    @app.task(retry=None)
    async def again() -> None:
        raise RetryLater(60)

    hang.enqueue()
    with pytest.raises(AssertionError, match=r"not idle within 0\.3 s: default: 1 on its lanes"):
        run_until_idle(app, within_s=0.3, settings={"worker.drain_timeout_s": 0.1})
    left = state_of(driver, QueueKeys(namespace, "default"))
    assert (left.backlog, left.returned) == (1, {"1:"})
    again.enqueue()
    with pytest.raises(AssertionError, match="not idle within"):
        run_until_idle(app, within_s=0.3, settings={"worker.drain_timeout_s": 0.1})


def test_it_runs_on_a_loop_that_is_there(app):
    loops = []

    @app.task
    async def here() -> None:
        loops.append(asyncio.get_running_loop())

    async def main():
        await here.aenqueue()
        assert await arun_until_idle(app) == Drained(succeeded=1)
        assert loops == [asyncio.get_running_loop()]
        await app.aclose()

    asyncio.run(main())


def test_the_lifespan_is_entered(app):
    from contextlib import asynccontextmanager

    seen = []

    @app.lifespan
    @asynccontextmanager
    async def pool():
        yield "pool"
        seen.append("closed")

    @app.task
    async def use(ctx: Context[str]) -> None:
        seen.append(ctx.resources)

    use.enqueue()
    run_until_idle(app)
    assert seen == ["pool", "closed"]


def test_a_manual_clock_goes_only_where_it_is_told():
    clock = ManualClock(1_000)
    steady_ms = clock.steady_ms()
    clock.advance(1.5)
    assert (clock.now_ms(), clock.steady_ms() - steady_ms) == (2_500, 1_500)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
