"""How deliveries end, through real workers: policies, steering, odd errors and results, contexts, waiting, cancel."""

from __future__ import annotations

import asyncio
import threading
import warnings
from contextlib import asynccontextmanager

import msgspec
import pytest

from streamwork import Context, Handle, Reject, ResultGone, Retry, RetryLater, Skip, TaskFailed, waiting
from streamwork.config import redis_for_tests
from streamwork.model.span import MOST_S
from streamwork.model.state import State
from streamwork.store.commands import plain
from streamwork.testing.server import PrivateServer
from streamwork.wire.message import decode_message
from streamwork.worker.embedded import EmbeddedWorker
from tests.apps import life
from tests.helpers import await_until, body_of, seed

AT_ONCE = Retry(max_attempts=3, base=0, jitter=False)


@pytest.fixture
def serving(app):
    """Run a coroutine beside a worker of the test's own app, on one loop."""

    def run(main, **settings):
        async def all_of_it():
            options = {f"worker.{name}": value for name, value in settings.items()}
            async with EmbeddedWorker(app, options) as embedded:
                await asyncio.wait_for(main(embedded), 30)
            await app.aclose()

        asyncio.run(all_of_it())

    return run


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "thread"])
def test_attempts_are_counted_until_the_policy_says_enough(app, look, serving, is_async):
    seen = []

    def note(ctx):
        seen.append(ctx.attempt)
        raise ValueError(f"attempt {ctx.attempt}")

    async def asleep(ctx: Context) -> None:
        note(ctx)

    def awake(ctx: Context) -> None:
        note(ctx)

    task = app.task(retry=AT_ONCE)(asleep if is_async else awake)

    async def main(embedded):
        handle = await task.aenqueue()
        with pytest.raises(TaskFailed, match="attempt 3") as caught:
            await handle
        assert (caught.value.type_name, caught.value.state) == ("ValueError", State.DEAD)
        assert "raise ValueError" in caught.value.traceback
        assert await handle.astate() == State.DEAD

    serving(main)
    state = look()
    assert seen == [1, 2, 3]
    assert [record.state for record in state.journal] == ["retried", "retried", "dead"]
    (letter,) = state.dead.values()
    assert (letter.reason, letter.attempt) == ("failed", "3,0,0,1,0")


def test_the_first_policy_that_fits_the_exception_counts(app, serving):
    runs = {"os": 0, "value": 0, "key": 0, "none": 0}
    errors = {"os": FileNotFoundError, "value": ValueError, "key": KeyError}

    @app.task(
        retry=[Retry(max_attempts=4, on=OSError, base=0), Retry(max_attempts=2, on=(ValueError, TypeError), base=0)]
    )
    async def fail(kind: str) -> None:
        runs[kind] += 1
        raise errors[kind](kind)

    @app.task(retry=None)
    async def fail_once() -> None:
        runs["none"] += 1
        raise OSError

    async def main(embedded):
        for call in (fail.call("os"), fail.call("value"), fail.call("key"), fail_once.call()):
            with pytest.raises(TaskFailed):
                await (await call.aenqueue())

    serving(main)
    assert runs == {"os": 4, "value": 2, "key": 1, "none": 1}


def test_the_wait_between_attempts_is_the_policys(app, serving):
    at = []

    @app.task(retry=Retry(max_attempts=3, base=0.1, factor=3, jitter=False))
    async def fail() -> None:
        at.append(asyncio.get_running_loop().time())
        raise ValueError

    async def main(embedded):
        with pytest.raises(TaskFailed):
            await (await fail.aenqueue())

    serving(main)
    first, second = at[1] - at[0], at[2] - at[1]
    # Never early by more than the millisecond that Redis counts in.
    assert first > 0.098
    assert second > 0.298
    assert second > first


def test_a_task_steers_its_own_delivery(app, look, serving):
    runs = []

    @app.task(retry=None)
    async def steer(how: str, ctx: Context) -> str:
        runs.append((how, ctx.attempt))
        if how == "later" and ctx.attempt < 3:
            raise RetryLater(0.02, "not yet")
        if how == "skip":
            raise Skip("not needed")
        if how == "reject":
            raise Reject("not wanted")
        return how

    async def main(embedded):
        assert await (await steer.aenqueue("later")) == "later"
        skipped = await steer.aenqueue("skip")
        assert (await skipped, await skipped.astate()) == (None, State.SKIPPED)
        with pytest.raises(TaskFailed, match="Reject: not wanted"):
            await (await steer.aenqueue("reject"))

    serving(main)
    assert runs == [("later", 1), ("later", 2), ("later", 3), ("skip", 1), ("reject", 1)]
    state = look()
    assert [letter.reason for letter in state.dead.values()] == ["rejected"]
    assert state.counts == {"retried": 2, "succeeded": 1, "skipped": 1, "dead": 1}


def test_options_survive_a_retry(app, look, driver, keys, serving):
    @app.task(retry=Retry(max_attempts=5, base=0), timeout=30)
    async def fail_twice(a: int, *, b: str, ctx: Context) -> tuple[int, str, int, str]:
        if ctx.attempt < 3:
            raise ValueError
        return a, b, ctx.attempt, ctx.lane

    async def main(embedded):
        special = fail_twice.options(
            priority=9, timeout=7, keep=60, retry=Retry(max_attempts=3, base=0.01, jitter=False)
        )
        handle = await special.aenqueue(1, b="x")
        # The reply stream is how the result arrives: a retry that lost `reply_to` would take until the next look.
        assert await asyncio.wait_for(handle.aresult(), 4) == (1, "x", 3, "3:")

    serving(main)
    bodies = [fields["d"] for _, fields in look().lanes["3:"]]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1
    message = decode_message(bodies[0])
    assert (message.options.timeout_ms, message.options.keep_ms) == (7_000, 60_000)
    assert message.reply_to is not None
    assert 0 < driver.run(plain("PTTL", keys.result(message.id))) <= 60_000


def test_the_messages_own_time_limit_and_retry_count(app, look, serving):
    runs = []

    @app.task(retry=None, timeout=30)
    async def hang() -> None:
        runs.append(1)
        await asyncio.sleep(30)

    async def main(embedded):
        handle = await hang.options(timeout=0.05, retry=Retry(max_attempts=2, base=0)).aenqueue()
        with pytest.raises(TaskFailed, match=r"TimeoutError: not ended within 0\.05 s"):
            await handle

    serving(main)
    assert len(runs) == 2


ODD = {
    "locked": ("tests.apps.life.Locked", "locked"),
    "mute": ("tests.apps.life.Mute", "<its text cannot be had: RuntimeError>"),
    "base": ("tests.apps.life.Base", "base"),
    "demanding": ("tests.apps.life.Demanding", "a and b"),
    "exit": ("SystemExit", "3"),
    "interrupt": ("KeyboardInterrupt", ""),
    "generator": ("GeneratorExit", ""),
    "cancelled": ("asyncio.exceptions.CancelledError", ""),
    "surrogate": ("ValueError", r"\udcff"),
    "endless": ("ValueError", "RetryLater(in_s=inf): a delay cannot be negative or without end"),
    "group": ("ExceptionGroup", "two (2 sub-exceptions)"),
    "timeout": ("TimeoutError", "own"),
    "recursion": ("RecursionError", "deep"),
}


@pytest.mark.parametrize(
    "task", [life.odd, life.odd_in_thread, life.odd_in_process], ids=["async", "thread", "process"]
)
def test_whatever_a_body_raises_the_caller_hears_of_it_and_the_worker_goes_on(start, send, look, task):
    worker = start("tests.apps.life:app", slots=4)
    (child,) = worker.children
    handles = {kind: send(task, kind) for kind in ODD}
    told = {}
    for kind, handle in handles.items():
        with pytest.raises(TaskFailed) as caught:
            handle.result(timeout=20)
        told[kind] = (caught.value.type_name, caught.value.message)
    assert told == ODD
    assert send(life.pid).result(timeout=10) == child
    assert len(look().dead) == len(ODD)
    assert "\nTraceback" not in worker.text()  # those of the tasks stand indented below the line of their death


def test_results_without_a_stored_form_fail_and_the_worker_goes_on(start, send):
    worker = start("tests.apps.life:app", slots=4)
    wrong = [send(task, what) for task in (life.give, life.give_in_process) for what in ("object", "surrogate")]
    for handle in wrong:
        with pytest.raises(TaskFailed, match=r"result of tests.apps.life.give"):
            handle.result(timeout=20)
    assert [send(task, "small").result(timeout=20) for task in (life.give, life.give_in_process)] == ["x", "x"]
    assert "\nTraceback" not in worker.text()  # those of the tasks stand indented below the line of their death


def test_a_large_result_arrives_and_one_that_redis_refuses_is_a_dead_letter(start, app, keys):
    give = app.task(name=life.give.name, retry=None)(life.give.function)
    start("tests.apps.life:app")
    assert len(give.enqueue("large").result(timeout=10)) == 3_000_000
    with PrivateServer(redis_for_tests()[1], "--proto-max-bulk-len", "1mb") as server:
        app.configure({"url": server.url})
        start("tests.apps.life:app", redis_url=server.url)
        large = give.enqueue("large")
        with pytest.raises(TaskFailed, match="SettleError"):
            large.result(timeout=20)
        assert give.enqueue("small").result(timeout=10) == "x"


def test_a_result_that_nobody_keeps_is_gone_and_a_late_wait_for_it_ends(app, serving):
    @app.task(keep=0)
    async def add(a: int, b: int) -> int:
        return a + b

    async def main(embedded):
        handle = await add.aenqueue(1, 2)

        async def is_over():
            return await handle.astate() == State.UNKNOWN

        await await_until(is_over, "it ended and left nothing")
        # Nobody waited when it ended, so there is nothing to hear of; without a time limit this must end all the same.
        waits = [handle.aresult(), asyncio.to_thread(handle.result)]
        found = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(error) for error in found] == [ResultGone, ResultGone]

    serving(main)


def test_a_wait_that_asks_does_not_give_up_what_still_runs(app, serving, monkeypatch):
    monkeypatch.setattr(waiting, "_ASK_S", 0.05)

    @app.task
    async def slow() -> str:
        await asyncio.sleep(0.3)
        return "done"

    @app.task(retry=Retry(max_attempts=3, base=0.2, jitter=False))
    async def later(ctx: Context) -> int:
        if ctx.attempt < 3:
            raise ValueError
        return ctx.attempt

    async def main(embedded):
        handles = [await task.aenqueue() for task in (slow, later)]
        waits = [wait for handle in handles for wait in (handle.aresult(), asyncio.to_thread(handle.result))]
        assert await asyncio.gather(*waits) == ["done", "done", 3, 3]

    serving(main)


@pytest.mark.parametrize(
    "task", [life.facts, life.facts_in_thread, life.facts_in_process], ids=["async", "thread", "process"]
)
def test_the_context_is_injected_in_every_executor(start, send, task):
    worker = start("tests.apps.life:app")
    declared = send.declared(task)
    handle = declared.options(priority=9).enqueue(7, note="n")
    facts = handle.result(timeout=20)
    assert (facts["number"], facts["note"], facts["task_id"], facts["task_name"]) == (7, "n", handle.id, task.name)
    assert (facts["queue"], facts["lane"], facts["attempt"], facts["crashes"], facts["lost"]) == (
        "default",
        "3:",
        2,
        0,
        False,
    )
    assert facts["fence"].endswith("/1")
    # The lifespan belongs to the worker process; a pool process has none.
    if task is life.facts_in_process:
        assert facts["resources"] is None
    else:
        assert facts["resources"] == {"pid": worker.children[0]}


def test_the_lifespan_is_entered_once_and_left_after_the_last_body(app, serving):
    told = []

    @app.lifespan
    @asynccontextmanager
    async def lifespan():
        told.append("in")
        yield "pool"
        told.append("out")

    @app.task
    async def use(ctx: Context[str]) -> None:
        await asyncio.sleep(0.02)
        told.append(ctx.resources)

    async def main(embedded):
        handles = [await use.aenqueue() for _ in range(3)]
        await await_until(lambda: embedded.worker.in_hand, "they run")
        del handles

    serving(main)
    assert told[0] == "in"
    assert told[-1] == "out"
    assert told[1:-1] == ["pool"] * (len(told) - 2)


def test_a_lost_lease_is_seen_by_the_body_also_beside_an_entry_that_cannot_be_read(app, driver, keys, serving):
    seen, began, release = [], asyncio.Event(), asyncio.Event()

    @app.task
    async def watch(ctx: Context) -> None:
        began.set()
        while not ctx.lease_lost:
            await asyncio.sleep(0.01)
        seen.append(ctx.lease_lost)

    async def main(embedded):
        held = asyncio.Event()
        settle = embedded.worker.settler._commit

        async def late(chunk):
            held.set()
            await release.wait()
            return await settle(chunk)

        embedded.worker.settler._commit = late
        seed(driver, keys, b"garbage")
        await asyncio.wait_for(held.wait(), 10)  # its dead letter is on its way, so it is held without a message
        await watch.aenqueue()
        await asyncio.wait_for(began.wait(), 10)
        before = embedded.worker.name
        driver.run(plain("HDEL", keys.consumers, before))
        driver.run(plain("DEL", keys.alive(before)))
        await await_until(lambda: seen, "the body saw it")
        release.set()
        await await_until(lambda: embedded.worker.name != before, "it goes on under another name")

    serving(main)


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "thread"])
def test_waiting_inside_a_task_for_its_own_queue_warns_and_is_refused_where_no_slot_is_left(app, serving, is_async):
    told = []
    began = threading.Event()

    @app.task
    async def inner() -> int:
        began.set()
        await asyncio.sleep(0.2)
        return 1

    # With room, the inner one takes the last slot before the wait begins, and that must not count as none left.
    async def outer_async(has_room: bool) -> int:
        handle = await inner.aenqueue()
        while has_room and not began.is_set():
            await asyncio.sleep(0.005)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = await handle.aresult(timeout=10)
        told.extend(str(warning.message) for warning in caught)
        return value

    def outer_thread(has_room: bool) -> int:
        handle = inner.enqueue()
        if has_room:
            assert began.wait(10)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = handle.result(timeout=10)
        told.extend(str(warning.message) for warning in caught)
        return value

    outer = app.task(retry=None, name="outer")(outer_async if is_async else outer_thread)

    async def with_room(embedded):
        assert await (await outer.aenqueue(True)) == 1

    serving(with_room, slots=2)
    assert len(told) == 1
    assert "outer waits for a task of its own queue 'default'" in told[0]

    async def without(embedded):
        with pytest.raises(TaskFailed, match="its worker has no free slot"):
            await (await outer.aenqueue(False)).aresult(timeout=10)

    serving(without, slots=1)


def test_states_follow_a_message_and_cancel_ends_it_where_it_waits(app, look, serving):
    began, go = asyncio.Event(), asyncio.Event()

    @app.task(retry=Retry(max_attempts=2, base=60, jitter=False))
    async def hold() -> str:
        began.set()
        await go.wait()
        raise ValueError("later")

    @app.task
    async def never() -> None:
        pytest.fail("it ran")

    async def main(embedded):
        first = await hold.aenqueue()
        await asyncio.wait_for(began.wait(), 10)
        assert await first.astate() == State.RUNNING
        second = await never.aenqueue()
        assert await second.astate() == State.WAITING
        assert await second.acancel() == "requested"
        assert await second.astate() == State.CANCELLING
        await await_until(lambda: second.id in embedded.worker._queues[0].cancelled, "the worker heard of it")
        go.set()
        with pytest.raises(TaskFailed) as caught:
            await second.aresult(timeout=10)
        assert (caught.value.state, caught.value.type_name) == (State.CANCELLED, "Cancelled")
        assert await second.astate() == State.CANCELLED
        assert second.id not in embedded.worker._queues[0].cancelled

        async def is_scheduled():
            return await first.astate() == State.SCHEDULED

        await await_until(is_scheduled, "its retry is due later")
        assert await first.acancel() == "cancelled"
        with pytest.raises(TaskFailed, match="cancelled before it ran"):
            await first.aresult(timeout=10)
        assert (await first.astate(), await first.acancel()) == (State.CANCELLED, "cancelled")

    serving(main, slots=1)
    state = look()
    assert (state.due, state.cancelled, state.backlog) == ({}, {}, 0)
    assert state.counts == {"retried": 1, "cancelled": 2}


def test_a_message_that_was_cancelled_while_nobody_listened_does_not_run(app, look, serving):
    ran = []

    @app.task
    async def note(n: int) -> int:
        ran.append(n)
        return n

    handles = [note.enqueue(n) for n in range(4)]
    assert handles[1].cancel() == "requested"
    assert handles[2].cancel() == "requested"

    async def main(embedded):
        assert await handles[3].aresult(timeout=10) == 3
        await await_until(lambda: embedded.worker.is_idle, "all is done")

    serving(main)
    assert sorted(ran) == [0, 3]
    assert [handle.state() for handle in handles] == [
        State.SUCCEEDED,
        State.CANCELLED,
        State.CANCELLED,
        State.SUCCEEDED,
    ]
    assert handles[0].cancel() == "ended"
    assert look().cancelled == {}


class Picky(type):
    """Exception types that ask before anything is compared with them."""

    def __instancecheck__(cls, instance):
        raise TypeError("compares with nothing")


class Odd(Exception, metaclass=Picky):
    pass


class Mute:
    """What cannot be shown."""

    def __str__(self):
        raise RuntimeError("no text")


def test_policies_and_reasons_that_break_do_not_make_a_worker_deaf(app, look, serving):
    @app.task(retry=Retry(max_attempts=2, base=0, on=(Odd,)))
    async def asked_of_odd_types() -> None:
        raise ValueError("boom")

    @app.task(retry=Retry(max_attempts=2, base=0, on=(Odd,)))
    def asked_in_a_thread() -> None:
        raise ValueError("boom")

    @app.task
    def rejects() -> None:
        raise Reject(Mute())

    @app.task
    async def fine() -> str:
        return "fine"

    async def main(embedded):
        handles = [await task.aenqueue() for task in (asked_of_odd_types, asked_in_a_thread, rejects) for _ in range(3)]
        for handle in handles:
            with pytest.raises(TaskFailed, match=r"boom \(and its retry policy: compares|its text cannot be had"):
                await handle.aresult(10)
        assert await (await fine.aenqueue()).aresult(10) == "fine"

    serving(main, slots=2)
    state = look()
    assert (state.in_flight, len(state.dead)) == (0, 9)


def test_options_that_lift_or_chain_reach_the_worker(app, serving):
    runs = []

    @app.task(timeout=0.05, retry=AT_ONCE)
    async def slow(seconds: float) -> str:
        runs.append(seconds)
        await asyncio.sleep(seconds)
        return "ended"

    async def main(embedded):
        assert await (await slow.options(timeout=None).options(priority=9).aenqueue(0.2)) == "ended"
        once = slow.options(retry=None).options(keep=60)
        with pytest.raises(TaskFailed, match=r"not ended within 0\.05 s"):
            await (await once.aenqueue(0.3))

    serving(main)
    assert runs == [0.2, 0.3]


def test_who_waits_for_a_message_that_cannot_be_read_is_told(app, serving, driver, keys):
    @app.task
    async def noop() -> None: ...

    async def main(embedded):
        handle = await noop.options(priority=4).aenqueue()  # the lane and the reply stream are there
        await handle
        client_id = app.connection.results.client_id
        task_id, _ = body_of(noop.name)
        # What a sender of an older day wrote for Retry(jitter=1).
        body = msgspec.msgpack.encode([1, task_id, noop.name, [], None, {"m": [3, 1, 2, 600, 1]}, client_id])
        entry = await asyncio.to_thread(driver.run, plain("XADD", keys.lane(handle.lane), "*", "d", body))
        odd = Handle(app.connection, task_id, "default", handle.lane, entry.decode(), lambda _: None)
        with pytest.raises(TaskFailed, match="not a task message"):
            await odd.aresult(10)
        assert await odd.astate() == State.DEAD

    serving(main)


def test_the_longest_span_that_is_accepted_is_one_that_everybody_can_wait(app, serving):
    @app.task(timeout=MOST_S, keep=MOST_S)
    async def noop() -> str:
        return "done"

    @app.task(retry=Retry(base=MOST_S, max_delay=MOST_S, factor=1, jitter=False))
    def fail() -> None:
        raise ValueError

    async def main(embedded):
        handle = await noop.aenqueue()
        assert await handle.aresult(MOST_S) == "done"
        assert await asyncio.to_thread(handle.result, MOST_S) == "done"
        later = await fail.options(timeout=MOST_S).aenqueue()
        await await_until(lambda: embedded.worker.ended == 2, "it waits for its second run")
        assert await later.astate() == State.SCHEDULED
        assert await later.acancel() == "cancelled"

    serving(main)
