"""backlog.lua and the senders: no message beyond a queue's limit, none lost, and what is not new is never refused."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest

from streamwork import QueueFull
from streamwork.broker.outgoing import Sender
from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.helpers import wait_until
from tests.proxy import is_script
from tests.redis.kit import (
    LANE,
    calls_of,
    deliver,
    dump,
    later,
    outgoing,
    put,
    read,
    settle,
    stored,
    sync_sender,
    with_async_sender,
)

IS_ENQUEUE = is_script(scripts.ENQUEUE)


def some(count, **options):
    return [outgoing(value=n, **options) for n in range(count)]


def ids(messages):
    return [message.task_id for message in messages]


def fill(driver, keys):
    """Leave three behind: one waits, one runs, one is scheduled; two have ended."""
    held = deliver(driver, keys, "w1", 4)
    assert settle(driver, keys, held[0])
    assert settle(driver, keys, held[1], "D")
    assert settle(driver, keys, held[2], "R")
    put(driver, keys, lane="3:gpu")
    return held[3]


@pytest.mark.parametrize("when", ["", "+60000"])
def test_what_waits_runs_and_is_scheduled_counts_and_what_ended_does_not(driver, keys, namespace, when):
    fill(driver, keys)
    message = outgoing()._replace(when=when)
    before = dump(driver, namespace)
    with pytest.raises(QueueFull) as full:
        driver.run(Sender(64, {"default": 3}).command(keys, [message], 1))
    assert (full.value.queue, full.value.backlog, full.value.limit, full.value.sent) == ("default", 3, 3, 0)
    assert "nothing was sent" in str(full.value)
    assert dump(driver, namespace) == before
    assert len(driver.run(Sender(64, {"*": 4}).command(keys, [message], 1))) == 1


def test_what_waits_for_a_limit_counts_and_what_has_limits_is_refused_too(driver, keys, namespace):
    limits = msgspec.msgpack.encode([("c", "c:x", 1)])
    sender = Sender(64, {"default": 3})
    messages = [message._replace(limits=limits) for message in some(2)]
    first, second = driver.run(sender.command(keys, messages, 1))
    assert (bool(first), second) == (True, "")  # the second one waits in the line
    sender.sent(keys)
    one = [outgoing()._replace(limits=limits)]
    with pytest.raises(QueueFull):
        driver.run(sender.command(keys, one * 2, 1))
    before = dump(driver, namespace)
    with pytest.raises(QueueFull) as full:
        driver.run(Sender(64, {"default": 2}).command(keys, one, 1))
    assert (full.value.backlog, full.value.limit) == (2, 2)
    assert dump(driver, namespace) == before
    assert driver.run(sender.command(keys, one, 1)) == driver.run(sender.command(keys, one, 1)) == [""]
    sender.sent(keys)
    with pytest.raises(QueueFull):
        driver.run(sender.command(keys, [outgoing()], 1))


@pytest.mark.parametrize(("policy", "sign"), [("c", "="), ("r", "!")], ids=["joined", "refused"])
def test_what_another_one_of_its_kind_takes_the_place_of_needs_no_room(driver, keys, policy, sign):
    of_a_kind = lambda key: outgoing()._replace(limits=msgspec.msgpack.encode([("u", f"u:{key}", policy, 0, 0)]))
    sender, first = Sender(64, {"default": 1}), of_a_kind("a")
    assert driver.run(sender.command(keys, [first], 1)) != [""]
    sender.sent(keys)
    assert driver.run(sender.command(keys, [of_a_kind("a")], 1)) == [sign + first.task_id]
    sender.sent(keys)
    with pytest.raises(QueueFull):
        driver.run(sender.command(keys, [of_a_kind("a"), of_a_kind("b")], 1))


def test_a_queue_without_a_limit_is_not_counted(own, own_keys):
    for limits in (None, {}, {"default": 0, "*": 1}, {"other": 1}):
        own.run(Sender(64, limits).command(own_keys, some(2), 1))
    assert calls_of(own, "hvals") == 0
    own.run(Sender(64, {"default": 100}).command(own_keys, some(2), 1))
    assert calls_of(own, "hvals") == 2  # however many messages there are


def test_a_resent_chunk_that_was_counted_is_answered_although_there_is_no_room_any_more(driver, keys):
    sender, message = Sender(64, {"*": 1}), outgoing()
    first = driver.run(sender.command(keys, [message], 1))
    assert driver.run(sender.command(keys, [message], 1)) == first
    sender.sent(keys)
    with pytest.raises(QueueFull):
        driver.run(sender.command(keys, [outgoing()], 1))


def test_retries_promotions_and_what_is_given_back_pass_a_full_queue(driver, keys):
    first, second = deliver(driver, keys, "w1", 2)
    limit = Sender(64, {"*": 2})
    with pytest.raises(QueueFull):
        driver.run(limit.command(keys, [outgoing()], 1))
    assert settle(driver, keys, first, "R", run_at=1)
    assert driver.run(scripts.release(keys, LANE, "w1", [(second.entry, 1)])) == 1
    assert driver.run(scripts.promote(keys, [LANE], 10)).moved == 1
    assert [row.entry for row in driver.run(scripts.adopt(keys, LANE, "w2", 5))] == [second.entry]
    assert [run.task_id for run in read(driver, keys, "w2")] == [first.task_id]
    with pytest.raises(QueueFull):
        driver.run(limit.command(keys, [outgoing()], 1))


@pytest.mark.parametrize("when", ["", "+60000"])
def test_of_a_chunk_as_many_go_as_there_is_room_for_and_the_error_says_how_many(redis_url, driver, keys, when):
    put(driver, keys, 2, lane="0:")
    messages = [message._replace(when=when) for message in some(6)]
    sender = sync_sender(redis_url, max_backlog=("5",))
    with pytest.raises(QueueFull, match="3 were sent before and stay sent") as full:
        sender.line().send(keys, messages)
    assert (full.value.sent, full.value.backlog, full.value.limit) == (3, 5, 5)
    there = [name.decode() for name in driver.run(plain("ZRANGE", keys.due, 0, -1))] if when else stored(driver, keys)
    assert sorted(there) == sorted(ids(messages[:3]))
    for run in read(driver, keys, "w1", lane="0:"):
        assert settle(driver, keys, run)
    assert len(sender.line().send(keys, messages[3:5])) == 2  # the line goes on with its next number


def test_who_waits_is_served_in_order_as_room_is_made(redis_url, driver, keys):
    held = deliver(driver, keys, "w1", 2)
    messages = some(4)
    sender = sync_sender(redis_url, max_backlog=("default=3", "*=1"))
    answer = later(lambda: sender.line().send(keys, messages, 30.0))
    wait_until(lambda: len(stored(driver, keys)) == 3, "what fits is sent")
    for run in held:
        assert settle(driver, keys, run)
    wait_until(lambda: len(stored(driver, keys)) == 5, "what fits then is sent")
    for run in read(driver, keys, "w1"):
        assert settle(driver, keys, run)
    assert len(answer()) == 4
    assert stored(driver, keys)[2:] == ids(messages)


def test_a_wait_that_is_over_is_an_error_and_nothing_was_sent(redis_url, driver, keys):
    put(driver, keys)
    sender = sync_sender(redis_url, max_backlog=("1",))
    with pytest.raises(QueueFull, match="nothing was sent"):
        sender.line().send(keys, some(1), 0.2)
    assert len(stored(driver, keys)) == 1


def test_many_threads_never_pass_the_limit_together(redis_url, driver, keys):
    sender, refused, sent = sync_sender(redis_url, max_backlog=("50",)), [], []

    def go():
        for message in some(20):
            try:
                sender.line().send(keys, [message])
                sent.append(message.task_id)
            except QueueFull:
                refused.append(message.task_id)

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(sent), len(refused)) == (50, 70)
    assert sorted(stored(driver, keys)) == sorted(sent)


def test_callers_on_a_loop_get_the_room_there_is_and_the_others_are_refused(redis_url, driver, keys):
    messages = some(40)

    async def body(sender):
        return await asyncio.gather(*(sender.send(keys, one) for one in messages), return_exceptions=True)

    answers = with_async_sender(redis_url, body, max_backlog=("25",))
    assert [isinstance(answer, QueueFull) for answer in answers] == [False] * 25 + [True] * 15
    assert stored(driver, keys) == ids(messages[:25])


def test_callers_on_a_loop_wait_for_room_each_as_long_as_it_says(redis_url, driver, keys):
    held, messages = deliver(driver, keys, "w1", 3), some(8)

    async def body(sender):
        waiting = [sender.send(keys, one, 30.0) for one in messages]
        hasty = [sender.send(keys, outgoing(), 0.3) for _ in range(3)]
        refused = await asyncio.gather(*hasty, return_exceptions=True)
        assert [type(answer) for answer in refused] == [QueueFull] * 3
        assert not any(future.done() for future in waiting)
        for run in held:
            assert settle(driver, keys, run)
        while not all(future.done() for future in waiting):
            for run in read(driver, keys, "w1"):
                assert settle(driver, keys, run)
            await asyncio.sleep(0.01)
        return [future.result() for future in waiting]

    assert len(with_async_sender(redis_url, body, max_backlog=("3",))) == 8
    assert stored(driver, keys)[3:] == ids(messages)


@pytest.mark.parametrize("lose", ["reply", "request"])
def test_a_lost_answer_at_the_limit_is_answered_and_counts_once(own, own_keys, proxy, lose):
    sender, messages = sync_sender(proxy.url, max_backlog=("3",)), some(3)
    for message in messages:
        getattr(proxy, f"lose_{lose}")(IS_ENQUEUE, 1)
        assert len(sender.line().send(own_keys, [message])) == 1
    assert stored(own, own_keys) == ids(messages)
    with pytest.raises(QueueFull):
        sender.line().send(own_keys, some(1))


def test_ten_thousand_and_one(app, driver, keys):
    app.configure({"client.max_backlog": 10_000})
    with pytest.raises(QueueFull) as full:
        app.enqueue_many(app.call("tests.echo", n) for n in range(10_001))
    assert (full.value.sent, full.value.backlog, full.value.limit) == (10_000, 10_000, 10_000)
    assert len(stored(driver, keys)) == 10_000
    with pytest.raises(QueueFull):
        app.call("tests.echo", 1).enqueue()
    app.call_elsewhere("tests.echo", (1,), {}, queue="other").enqueue()  # each queue has its own

    async def many():
        with pytest.raises(QueueFull) as full:
            await app.aenqueue_many(app.call_elsewhere("tests.echo", (n,), {}, queue="third") for n in range(10_700))
        assert full.value.sent == 10_000

    asyncio.run(many())
