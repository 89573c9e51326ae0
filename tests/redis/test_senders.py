"""Senders: enqueued exactly once whatever is lost, whoever is interrupted and however many send (rules 1-3, P1)."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import threading
import time
from contextlib import nullcontext

import pytest

from streamwork.broker.resend import Patience
from streamwork.config import ClientConfig
from streamwork.errors import EnqueueUnknown, StoreFull, StoreRejected, StoreUnavailable, TooManyLanes
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.wire.message import decode_message
from tests.forked import in_child, start_child
from tests.helpers import wait_until
from tests.proxy import is_script
from tests.redis.kit import LANE, calls_of, full, outgoing, stored, sync_sender, with_async_sender

IS_ENQUEUE = is_script(scripts.ENQUEUE)


def marks(driver, keys):
    """Return the senders that the server knows."""
    return driver.run(plain("KEYS", keys.sender("*").replace("{", "[{]")))


def send(sender, keys, *messages):
    return sender.line().send(keys, messages)


def bulk(sender, chunks):
    """Send chunks of messages (each with its keys); returns what was answered."""
    return [entries for _, entries in sender.send_chunks((keys, chunk, None) for keys, chunk in chunks)]


@pytest.mark.parametrize("lose", ["reply", "request"])
def test_a_lost_answer_of_any_enqueue_does_not_enqueue_twice(own, own_keys, proxy, lose):
    sender, messages, entries = sync_sender(proxy.url), [outgoing(value=n) for n in range(12)], []
    for n, message in enumerate(messages):
        if n in (0, 3, 4, 11):
            getattr(proxy, f"lose_{lose}")(IS_ENQUEUE, 1)
        entries += send(sender, own_keys, message)
        assert proxy.dropped == (1 if n in (0, 3, 4, 11) else proxy.dropped)
    assert stored(own, own_keys) == [message.task_id for message in messages]
    assert [row[0].decode() for row in own.run(plain("XRANGE", own_keys.lane(LANE), "-", "+"))] == entries


def test_three_lost_answers_in_a_row_are_still_one_message(own, own_keys, proxy):
    proxy.lose_reply(IS_ENQUEUE, 1, 2, 3)
    message = outgoing()
    send(sync_sender(proxy.url), own_keys, message)
    assert (proxy.dropped, stored(own, own_keys)) == (3, [message.task_id])


@pytest.mark.parametrize("lose", ["reply", "request"])
@pytest.mark.parametrize("nth", [1, 4, 8])
def test_a_bulk_with_a_lost_answer_is_enqueued_once_and_in_order(own, own_keys, proxy, lose, nth):
    messages = [outgoing(value=n) for n in range(80)]
    getattr(proxy, f"lose_{lose}")(IS_ENQUEUE, nth)
    answers = bulk(sync_sender(proxy.url), ((own_keys, messages[n : n + 10]) for n in range(0, 80, 10)))
    assert proxy.dropped == 1
    assert stored(own, own_keys) == [message.task_id for message in messages]
    rows = own.run(plain("XRANGE", own_keys.lane(LANE), "-", "+"))
    assert [row[0].decode() for row in rows] == list(itertools.chain(*answers))


@pytest.mark.parametrize("lose", ["reply", "request"])
def test_concurrent_sends_with_lost_answers_are_enqueued_once(own, own_keys, proxy, lose):
    messages = [outgoing(value=n) for n in range(1200)]

    async def body(sender):
        getattr(proxy, f"lose_{lose}")(IS_ENQUEUE, 1, 3)
        return await asyncio.gather(*(sender.send(own_keys, message) for message in messages))

    entries = with_async_sender(proxy.url, body)
    assert proxy.dropped == 2
    assert stored(own, own_keys) == [message.task_id for message in messages]
    assert [row[0].decode() for row in own.run(plain("XRANGE", own_keys.lane(LANE), "-", "+"))] == entries


def test_random_losses_over_threads_and_loops_lose_and_double_nothing(own, own_keys, proxy):
    draw = random.Random(3)
    proxy.lose_reply(IS_ENQUEUE, *draw.sample(range(1, 400), 40))
    sender, sent, lock = sync_sender(proxy.url), [], threading.Lock()

    def run():
        for n in range(40):
            message = outgoing(value=n)
            send(sender, own_keys, message)
            with lock:
                sent.append(message.task_id)

    def run_loop():
        async def body(async_sender):
            for _ in range(10):
                messages = [outgoing() for _ in range(20)]
                await asyncio.gather(*(async_sender.send(own_keys, message) for message in messages))
                with lock:
                    sent.extend(message.task_id for message in messages)

        with_async_sender(proxy.url, body)

    threads = [threading.Thread(target=target) for target in (run, run, run, run, run_loop, run_loop)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.dropped > 5
    assert len(sent) == 4 * 40 + 2 * 200
    assert sorted(stored(own, own_keys)) == sorted(sent)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_redis_that_comes_up_later_is_waited_for(server, own_keys, kind):
    server.stop()
    message = outgoing()
    done = []

    def run():
        if kind == "sync":
            done.append(send(sync_sender(server.url), own_keys, message))
        else:

            async def body(sender):
                done.append([await sender.send(own_keys, message)])

            with_async_sender(server.url, body)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    server.start()
    thread.join(10)
    driver = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    assert (len(done), stored(driver, own_keys)) == (1, [message.task_id])
    driver.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("timeout_s", [0.0, 0.4])
def test_redis_that_stays_away_is_an_error_in_time_and_nothing_was_sent(server, own_keys, kind, timeout_s):
    server.stop()
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match="start it"):
        attempt(kind, server.url, own_keys, outgoing(), send_timeout_s=timeout_s)
    assert timeout_s <= time.monotonic() - begun < timeout_s + 3
    server.start()
    driver = SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    assert stored(driver, own_keys) == []
    driver.close()


def attempt(kind, url, keys, *messages, deadline_s=5.0, **settings):
    if kind == "sync":
        return send(sync_sender(url, deadline_s, **settings), keys, *messages)

    async def body(sender):
        return await asyncio.gather(*(sender.send(keys, message) for message in messages))

    return with_async_sender(url, body, deadline_s, **settings)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_unknown_end_names_the_message_and_does_not_swallow_the_next(server, own, own_keys, kind):
    warm, lost, following = outgoing(), outgoing(), outgoing()
    settings = {"deadline_s": 0.2, "send_timeout_s": 0.3, "resend_s": 0.3}
    stop = lambda: os.kill(server.pid, signal.SIGSTOP)
    go_on = lambda: os.kill(server.pid, signal.SIGCONT)
    if kind == "sync":
        sender = sync_sender(server.url, **settings)
        send(sender, own_keys, warm)
        stop()
        with pytest.raises(EnqueueUnknown) as caught:
            send(sender, own_keys, lost)
        go_on()
        send(sender, own_keys, following)
    else:

        async def body(sender):
            await sender.send(own_keys, warm)
            stop()
            with pytest.raises(EnqueueUnknown) as caught:
                await sender.send(own_keys, lost)
            go_on()
            await sender.send(own_keys, following)
            return caught

        caught = with_async_sender(server.url, body, **settings)
    assert caught.value.task_ids == [lost.task_id]
    assert "may have arrived" in str(caught.value)
    ids = stored(own, own_keys)
    assert ids.count(following.task_id) == 1
    assert ids.count(lost.task_id) <= 1


def test_ctrl_c_after_the_request_does_not_swallow_the_next_message(own, server, own_keys, monkeypatch):
    sender = sync_sender(server.url)
    first, second, third = outgoing(), outgoing(), outgoing()
    send(sender, own_keys, first)
    driver = sender.line()._driver
    real = type(driver).finish

    def interrupted(self, command, timeout_s=None):
        real(self, command, timeout_s)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(driver), "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        send(sender, own_keys, second)
    monkeypatch.undo()
    send(sender, own_keys, third)
    assert stored(own, own_keys) == [message.task_id for message in (first, second, third)]


@pytest.mark.parametrize("where", ["begin", "finish"])
def test_ctrl_c_in_a_bulk_does_not_swallow_the_next_bulk(own, server, own_keys, monkeypatch, where):
    sender = sync_sender(server.url)
    first, second = [[outgoing() for _ in range(3)] for _ in range(2)]
    real = getattr(SyncDriver, where)

    def interrupted(self, *args):
        real(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(SyncDriver, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        bulk(sender, [(own_keys, first)])
    monkeypatch.undo()
    for _ in range(2):
        bulk(sender, [(own_keys, second)])
    ids = stored(own, own_keys)
    assert [ids.count(message.task_id) for message in (*first, *second)] == [1, 1, 1, 2, 2, 2]


def test_a_generator_that_raises_leaves_what_was_begun_and_a_sender_that_works(own, server, own_keys):
    sender = sync_sender(server.url)
    first, second, third = [[outgoing()] for _ in range(3)]

    def chunks():
        yield own_keys, first, None
        yield own_keys, second, None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(sender.send_chunks(chunks()))
    bulk(sender, [(own_keys, third)])
    assert stored(own, own_keys) == [chunk[0].task_id for chunk in (first, second, third)]


def test_a_bulk_that_is_abandoned_half_way_is_read_to_its_end(own, server, own_keys):
    sender = sync_sender(server.url)
    messages = [outgoing() for _ in range(5)]
    sending = sender.send_chunks((own_keys, [message], None) for message in messages)
    next(sending)
    sending.close()
    bulk(sender, [(own_keys, [messages[-1]])])
    ids = stored(own, own_keys)
    assert ids[0] == messages[0].task_id
    assert ids[-1] == messages[-1].task_id
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("expected", [StoreFull, TooManyLanes])
def test_a_refusal_is_typed_and_the_next_message_goes_through(own, server, own_keys, kind, expected):
    good, more = outgoing(), outgoing()
    bad = outgoing(LANE if expected is StoreFull else "3:gpu")
    filling = (lambda: full(own)) if expected is StoreFull else nullcontext
    if kind == "sync":
        sender = sync_sender(server.url, max_lanes=1)
        send(sender, own_keys, good)
        with filling(), pytest.raises(expected):
            send(sender, own_keys, bad)
        send(sender, own_keys, more)
    else:

        async def body(sender):
            await sender.send(own_keys, good)
            with filling(), pytest.raises(expected):
                await sender.send(own_keys, bad)
            await sender.send(own_keys, more)

        with_async_sender(server.url, body, max_lanes=1)
    assert stored(own, own_keys) == [good.task_id, more.task_id]
    assert own.run(plain("HKEYS", own_keys.lanes)) == [LANE.encode()]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_server_that_forgot_this_senders_last_chunks_gets_a_new_sender(own, server, own_keys, kind):
    first, second = outgoing(), outgoing()

    def forget():
        (mark,) = marks(own, own_keys)
        own.run(plain("SET", mark, "77\nx", "PX", 60_000))

    if kind == "sync":
        sender = sync_sender(server.url)
        send(sender, own_keys, first)
        forget()
        send(sender, own_keys, second)
        forgotten = bulk(sender, [(own_keys, [outgoing()])])
        assert len(forgotten) == 1
    else:

        async def body(sender):
            await sender.send(own_keys, first)
            forget()
            await sender.send(own_keys, second)

        with_async_sender(server.url, body)
    assert stored(own, own_keys)[:2] == [first.task_id, second.task_id]
    assert len(marks(own, own_keys)) == (3 if kind == "sync" else 2)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_flushall_and_flushed_scripts_in_between_do_not_stop_it(own, server, own_keys, kind):
    messages = [outgoing() for _ in range(3)]

    def hurt(n):
        own.run(plain(*(("FLUSHALL",) if n == 1 else ("SCRIPT", "FLUSH"))))

    if kind == "sync":
        sender = sync_sender(server.url)
        for n, message in enumerate(messages):
            hurt(n)
            send(sender, own_keys, message)
    else:

        async def body(sender):
            for n, message in enumerate(messages):
                hurt(n)
                await sender.send(own_keys, message)

        with_async_sender(server.url, body)
    assert stored(own, own_keys) == [message.task_id for message in messages[1:]]


def test_threads_have_senders_of_their_own(own, server, own_keys):
    sender, sent = sync_sender(server.url), []

    def run(n):
        mine = [outgoing(value=i) for i in range(100)]
        for message in mine:
            send(sender, own_keys, message)
        sent.append([message.task_id for message in mine])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = stored(own, own_keys)
    assert sorted(ids) == sorted(itertools.chain(*sent))
    assert all([task_id for task_id in ids if task_id in set(mine)] == mine for mine in sent)  # order per thread
    assert len(marks(own, own_keys)) == 6


def test_bulks_in_many_threads_share_nothing(own, server, own_keys):
    sender, sent = sync_sender(server.url), []

    def run():
        for _ in range(5):
            messages = [outgoing() for _ in range(40)]
            bulk(sender, [(own_keys, messages[n : n + 10]) for n in range(0, 40, 10)])
            sent.extend(message.task_id for message in messages)

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stored(own, own_keys)) == sorted(sent)
    assert len(sent) == 1000


def test_after_a_fork_parent_and_child_send_under_names_of_their_own(own, server, own_keys):
    sender = sync_sender(server.url)
    before = [outgoing()]
    send(sender, own_keys, *before)

    def run():
        messages = [outgoing(value=n) for n in range(50)]
        for message in messages[:25]:
            send(sender, own_keys, message)
        bulk(sender, [(own_keys, messages[25:])])
        return [message.task_id for message in messages]

    children = [start_child(run) for _ in range(3)]
    mine = run()
    theirs = [child() for child in children]
    sent = [before[0].task_id, *mine, *itertools.chain(*theirs)]
    assert len(set(sent)) == 201
    assert sorted(stored(own, own_keys)) == sorted(sent)
    # Each process: one for single messages, one for the bulk.
    assert len(marks(own, own_keys)) == 8


def test_an_app_survives_a_fork_on_both_sides(app):
    @app.task
    def noted(value: int) -> int:
        return value

    first = noted.enqueue(1)
    theirs = in_child(lambda: [noted.enqueue(n).id for n in range(20)])
    mine = [noted.enqueue(n).id for n in range(20)]
    keys = app.connection.keys("default")
    assert sorted(stored(app.connection.driver, keys, first.lane)) == sorted([first.id, *theirs, *mine])


def test_a_refusal_in_one_queue_does_not_double_what_is_in_doubt_in_another(own, own_keys, proxy):
    other = QueueKeys("own", "other")
    own.run(plain("SADD", other.lanes, "foreign"))
    messages = [outgoing() for _ in range(3)]

    async def body(sender):
        await sender.send(own_keys, messages[0])
        # The reply of both queues' chunks is lost; one of them is then refused for good, while the other is sent again.
        proxy.lose_reply(IS_ENQUEUE, 1)
        in_doubt = [sender.send(own_keys, message) for message in messages[1:]]
        refused = [sender.send(other, outgoing()) for _ in range(2)]
        errors = await asyncio.gather(*refused, return_exceptions=True)
        assert {type(error) for error in errors} == {StoreRejected}
        await asyncio.gather(*in_doubt)

    for _ in range(5):
        own.run(plain("DEL", own_keys.lane(LANE)))
        with_async_sender(proxy.url, body)
        assert stored(own, own_keys) == [message.task_id for message in messages]
        messages = [outgoing() for _ in range(3)]


def test_a_thousand_at_once_are_a_few_calls(own, server, own_keys):
    messages = [outgoing(value=n) for n in range(1000)]

    async def body(sender):
        await asyncio.gather(*(sender.send(own_keys, message) for message in messages))

    before = calls_of(own, "evalsha")
    with_async_sender(server.url, body)
    assert calls_of(own, "evalsha") - before <= 10
    assert stored(own, own_keys) == [message.task_id for message in messages]


def test_a_chunk_is_bounded_in_bytes_and_messages(own, server, own_keys):
    large, small = [outgoing(value="x" * 30_000) for _ in range(10)], [outgoing() for _ in range(1000)]

    async def body(sender):
        await asyncio.gather(*(sender.send(own_keys, message) for message in (*large, *small)))

    before = calls_of(own, "evalsha")
    with_async_sender(server.url, body)
    # Two of 30 KB fit into 64 KB: five chunks, then 1,000 small ones by 500, which are under 64 KB together.
    assert 7 <= calls_of(own, "evalsha") - before <= 10
    assert len(stored(own, own_keys)) == 1010


def test_the_order_within_one_coroutine_is_kept(own, server, own_keys):
    async def body(sender):
        async def one(name):
            mine = [outgoing(value=f"{name}-{n}") for n in range(40)]
            for message in mine:
                await sender.send(own_keys, message)
            return [message.task_id for message in mine]

        return await asyncio.gather(*(one(name) for name in range(25)))

    sent = with_async_sender(server.url, body)
    ids = stored(own, own_keys)
    assert len(ids) == 1000
    place = {task_id: n for n, task_id in enumerate(ids)}
    assert all([place[task_id] for task_id in mine] == sorted(place[task_id] for task_id in mine) for mine in sent)


def test_cancelled_callers_hurt_nobody(own, server, own_keys):
    messages = [outgoing(value=n) for n in range(300)]

    async def body(sender):
        async def one(message):
            return await sender.send(own_keys, message)

        tasks = [asyncio.ensure_future(one(message)) for message in messages]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = with_async_sender(server.url, body)
    rows = own.run(plain("XRANGE", own_keys.lane(LANE), "-", "+"))
    entries = {decode_message(fields[1]).id: entry.decode() for entry, fields in rows}
    assert len(rows) == len(entries)
    for n, (message, answer) in enumerate(zip(messages, answers, strict=True)):
        if n % 3:
            assert answer == entries[message.task_id]
        else:
            assert isinstance(answer, asyncio.CancelledError)


def test_who_cancels_every_task_of_a_loop_does_not_make_the_next_message_vanish(own, server, own_keys):
    first, second, third = outgoing(), outgoing(), outgoing()

    async def body(sender):
        await sender.send(own_keys, first)
        os.kill(server.pid, signal.SIGSTOP)
        in_flight = sender.send(own_keys, second)
        await asyncio.sleep(0)  # the flush is on its way
        for task in asyncio.all_tasks():
            if "enqueue" in task.get_name():
                task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await in_flight
        os.kill(server.pid, signal.SIGCONT)
        await sender.send(own_keys, third)

    with_async_sender(server.url, body)
    ids = stored(own, own_keys)
    assert ids.count(third.task_id) == 1
    assert ids.count(second.task_id) <= 1


def test_closing_gives_the_connections_of_bulks_back(own, server, own_keys):
    before = len(own.run(plain("CLIENT", "LIST")).splitlines())
    sender = sync_sender(server.url)
    bulk(sender, [(own_keys, [outgoing()])])
    sender.close()
    wait_until(lambda: len(own.run(plain("CLIENT", "LIST")).splitlines()) == before, "the connection to be gone")


@pytest.mark.parametrize("refused", ["bound", "foreign"])
def test_a_lane_that_is_refused_does_not_concern_those_who_travel_with_it(own, server, own_keys, refused):
    lanes = [LANE, "1:a", "1:b"]
    fine = [outgoing(lane, n) for n, lane in enumerate(lanes * 10)]
    bad = [outgoing("1:bad", n) for n in range(2)]
    if refused == "foreign":
        own.run(plain("SET", own_keys.lane("1:bad"), "foreign"))

    async def body(sender):
        await sender.send(own_keys, outgoing("1:a"))
        await sender.send(own_keys, outgoing("1:b"))
        await sender.send(own_keys, outgoing(LANE))
        mixed = [*fine[:5], bad[0], *fine[5:], bad[1]]
        return await asyncio.gather(*(sender.send(own_keys, one) for one in mixed), return_exceptions=True)

    answers = with_async_sender(server.url, body, max_lanes=3 if refused == "bound" else 64)
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    assert [type(error) for error in failed] == [TooManyLanes if refused == "bound" else StoreRejected] * 2
    for lane in lanes:
        assert stored(own, own_keys, lane)[1:] == [one.task_id for one in fine if one.lane == lane]


def test_a_full_redis_refuses_all_in_one_call(own, server, own_keys):
    async def body(sender):
        await sender.send(own_keys, outgoing())
        before = calls_of(own, "evalsha")
        with full(own):
            answers = await asyncio.gather(
                *(sender.send(own_keys, outgoing(f"1:{n}")) for n in range(20)), return_exceptions=True
            )
        return answers, calls_of(own, "evalsha") - before

    answers, calls = with_async_sender(server.url, body)
    assert ({type(answer) for answer in answers}, calls) == ({StoreFull}, 1)


def test_what_may_have_arrived_is_tried_longer_than_what_surely_did_not():
    assert (ClientConfig().send_timeout_s < ClientConfig().resend_s, ClientConfig().resend_s) == (True, 60.0)
    config = ClientConfig(send_timeout_s=10.0, resend_s=60.0)
    sent, unsent = StoreUnavailable("lost", maybe_executed=True), StoreUnavailable("away", maybe_executed=False)
    assert Patience(config, 100.0).pause_s(unsent, 109.9, ["id"]) >= 0
    with pytest.raises(StoreUnavailable):
        Patience(config, 100.0).pause_s(unsent, 110.0, ["id"])
    patience = Patience(config, 100.0)
    assert patience.pause_s(sent, 101.0, ["id"]) >= 0
    assert patience.pause_s(unsent, 159.9, ["id"]) >= 0  # the first try may still have arrived
    with pytest.raises(EnqueueUnknown):
        patience.pause_s(unsent, 160.0, ["id"])
