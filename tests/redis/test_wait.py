"""`options(wait=...)`: an enqueue bears a Redis that is away or full as long as it is told to, and no longer."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from streamwork.errors import EnqueueUnknown, StoreFull, StoreUnavailable
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from tests.helpers import wait_until
from tests.redis.kit import calls_of, later, outgoing, stored, sync_sender, with_async_sender


def test_an_enqueue_waits_as_long_as_it_is_told_while_redis_is_full(own, own_keys, server):
    sender, message = sync_sender(server.url), outgoing()
    own.run(plain("CONFIG", "SET", "maxmemory", 1))
    with pytest.raises(StoreFull):
        sender.line().send(own_keys, (outgoing(),))
    with pytest.raises(StoreFull):
        sender.line().send(own_keys, (outgoing(),), 0.2)
    waiting = later(sender.line().send, own_keys, (message,), 60.0)
    before = calls_of(own, "evalsha")
    wait_until(lambda: calls_of(own, "evalsha") > before + 2, "it was refused again and again")
    assert stored(own, own_keys) == []
    own.run(plain("CONFIG", "SET", "maxmemory", 0))
    assert len(waiting()) == 1
    assert stored(own, own_keys) == [message.task_id]


def test_on_a_loop_those_who_wait_hold_up_nobody_else(own, own_keys, server):
    patient, hasty = outgoing(), outgoing()

    async def body(sender):
        own.run(plain("CONFIG", "SET", "maxmemory", 1))
        waiting = sender.send(own_keys, patient, 60.0)
        with pytest.raises(StoreFull):
            await sender.send(own_keys, hasty)
        assert not waiting.done()
        own.run(plain("CONFIG", "SET", "maxmemory", 0))
        return await waiting

    assert with_async_sender(server.url, body)
    assert stored(own, own_keys) == [patient.task_id]


def test_a_bulk_waits_as_long_as_it_is_told(own, own_keys, server):
    sender, messages = sync_sender(server.url), [outgoing() for _ in range(4)]
    own.run(plain("CONFIG", "SET", "maxmemory", 1))
    chunks = [(own_keys, messages[:2], None), (own_keys, messages[2:], None)]
    waiting = later(lambda: list(sender.send_chunks(iter(chunks), 60.0)))
    before = calls_of(own, "evalsha")
    wait_until(lambda: calls_of(own, "evalsha") > before + 2, "it was refused again and again")
    own.run(plain("CONFIG", "SET", "maxmemory", 0))
    assert [len(entries) for _, entries in waiting()] == [2, 2]
    assert stored(own, own_keys) == [message.task_id for message in messages]


def test_an_enqueue_waits_as_long_as_it_is_told_while_redis_is_away(own, own_keys, server):
    sender = sync_sender("redis://127.0.0.1:1/0", send_timeout_s=60.0)
    with pytest.raises(StoreUnavailable):
        sender.line().send(own_keys, (outgoing(),), 0.1)


# Each answer would be waited for a minute, and a lost one asked for again as long, if the caller did not say how long.
PATIENT = {"deadline_s": 60.0, "resend_s": 60.0, "send_timeout_s": 60.0}
SILENT = {
    "single": lambda sender, keys: sender.line().send(keys, (outgoing(),), 0.2),
    "large": lambda sender, keys: sender.line().send(keys, (outgoing(value="x" * 5_000_000),), 0.2),  # fills sockets
    "bulk": lambda sender, keys: list(sender.send_chunks(iter([(keys, [outgoing()], None)] * 2), 0.2)),
}


@pytest.mark.parametrize("way", SILENT)
@pytest.mark.parametrize("is_connected", [True, False])
def test_a_redis_that_is_silent_is_waited_for_as_long_as_it_is_told(own_keys, server, way, is_connected):
    sender = sync_sender(server.url, **PATIENT)

    def attempt():  # each thread has connections of its own
        if is_connected:
            sender.line().send(own_keys, (outgoing(),))
            list(sender.send_chunks(iter([(own_keys, [outgoing()], None)])))
        os.kill(server.pid, signal.SIGSTOP)
        SILENT[way](sender, own_keys)

    try:
        # What was sent may arrive yet; where there is no connection, nothing was sent.
        with pytest.raises(EnqueueUnknown if is_connected else StoreUnavailable):
            later(attempt)(within_s=20)
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("is_connected", [True, False])
def test_so_it_is_on_a_loop(own_keys, server, is_connected):
    async def body(sender):
        if is_connected:
            await sender.send(own_keys, outgoing())
        os.kill(server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                await sender.send(own_keys, outgoing(), 0.2)
        finally:
            os.kill(server.pid, signal.SIGCONT)

    with pytest.raises(EnqueueUnknown if is_connected else StoreUnavailable):
        with_async_sender(server.url, body, **PATIENT)


def test_the_public_ways_to_say_it_reach_the_sender(own, app, server):
    @app.task
    def nothing() -> None: ...

    with app.redirected("own", server.url):
        own.run(plain("CONFIG", "SET", "maxmemory", 1))
        ways = [
            later(nothing.options(wait=60).enqueue),
            later(lambda: app.enqueue_many([nothing.call(), nothing.call()], wait=60)),
            later(lambda: asyncio.run(awaited(app, nothing))),
        ]
        before = calls_of(own, "evalsha")
        wait_until(lambda: calls_of(own, "evalsha") > before + 12, "all are refused again and again")
        own.run(plain("CONFIG", "SET", "maxmemory", 0))
        for way in ways:
            way()
        assert len(own.run(plain("XRANGE", "{own:default}:lane:1:", "-", "+"))) == 6


async def awaited(app, task):
    await task.options(wait=60).aenqueue()
    await app.aenqueue_many([task.call(), task.call()], wait=60)
    await app.connection.aclose()


def test_every_length_of_a_wait_is_forgotten_with_its_messages(own, own_keys, server):
    async def body(sender):
        for number in range(50):
            await sender.send(own_keys, outgoing(), 10.0 + number)
        await asyncio.sleep(0)
        return len(sender._gathered), len(sender._senders)

    assert with_async_sender(server.url, body) == (0, 0)


def test_what_finds_its_idle_connection_closed_was_surely_not_sent(start_server):
    server = start_server("--appendonly", "yes")
    sender, keys = sync_sender(server.url, send_timeout_s=60.0), QueueKeys("own", "default")
    sender.line().send(keys, (outgoing(),))
    server.stop(signal.SIGKILL)
    time.sleep(0.1)  # it lies idle
    with pytest.raises(StoreUnavailable) as caught:
        sender.line().send(keys, (outgoing(),), 0.2)
    assert not isinstance(caught.value, EnqueueUnknown)
    server.start()
