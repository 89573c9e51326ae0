"""Rule 1: what is sent again is not enqueued again, and nothing that is acknowledged is swallowed."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from streamwork.broker import async_sender, resend, sync_sender
from streamwork.broker.outgoing import Sender
from streamwork.config import ClientConfig
from streamwork.errors import EnqueueUnknown, StoreError, StoreUnavailable
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS, SENDER_LIFE_MS
from streamwork.store.sync_driver import SyncDriver
from streamwork.wire.message import decode_message
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.proxy import is_script
from tests.redis.kit import LANE, outgoing


def stored(driver, keys):
    """Return the task ids on the lane, in order."""
    return [decode_message(fields[1]).id for _, fields in driver.run(plain("XRANGE", keys.lane(LANE), "-", "+"))]


def line(module, url, deadline_s=5.0, **settings):
    """Return one thread's line of a sender of this module."""
    make = lambda: SyncDriver(Endpoint(url), ALL_SCRIPTS, deadline_s)
    return module.SyncSender(make(), make, ClientConfig(**settings)).line()


def lost_answers(own, keys, proxy):
    sending, messages = line(sync_sender, proxy.url), [outgoing(value=n) for n in range(4)]
    sending.send(keys, messages[:1])
    for message in messages[1:]:
        proxy.lose_reply(is_script(scripts.ENQUEUE), 1, 2)
        sending.send(keys, [message])
        assert proxy.dropped == 2
    assert stored(own, keys) == [message.task_id for message in messages], "enqueued twice after a lost answer"


def test_a_lost_answer_does_not_enqueue_twice(own, own_keys, proxy):
    lost_answers(own, own_keys, proxy)


def test_without_sender_numbers_it_does(own, own_keys, proxy):
    must_fail("sender_numbers", "enqueued twice", lost_answers, own, own_keys, proxy)


def late_copy(own, keys):
    """A connection that stalls delivers its copy of a chunk when the sender has long gone on over another one."""
    messages = [outgoing(value=n) for n in range(3)]
    chunk = lambda n: scripts.enqueue(keys, "sender", n + 1, [LANE], [1, messages[n].body], 1, 64)
    for n in range(3):
        own.run(chunk(n))
    for n in range(2):
        with suppress(StoreError):
            own.run(chunk(n))
    assert stored(own, keys) == [message.task_id for message in messages], "a late copy was enqueued"


def test_a_late_copy_of_a_chunk_writes_nothing(own, own_keys):
    late_copy(own, own_keys)


def test_without_the_gap_error_it_does(own, own_keys):
    must_fail("gap", "a late copy", late_copy, own, own_keys)


SHORT = {"send_timeout_s": 0.5, "resend_s": 0.5}


def unknown_in_a_thread(module, server, own, keys):
    sending, (warm, lost, following) = line(module, server.url, 0.4, **SHORT), [outgoing() for _ in range(3)]
    sending.send(keys, [warm])
    os.kill(server.pid, signal.SIGSTOP)
    told = None
    try:
        sending.send(keys, [lost])
    except EnqueueUnknown as error:
        told = error.task_ids
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert told == [lost.task_id]
    own.run(plain("PING"))  # it has run what the stopped server had been sent
    sending.send(keys, [following])
    assert following.task_id in stored(own, keys), "acknowledged, and nowhere"


def unknown_on_a_loop(module, server, own, keys):
    warm, lost, following = [outgoing() for _ in range(3)]

    async def main():
        driver = AsyncDriver(Endpoint(server.url), ALL_SCRIPTS, 0.4)
        sender = module.AsyncSender(driver, ClientConfig(**SHORT))
        await sender.send(keys, warm)
        os.kill(server.pid, signal.SIGSTOP)
        told = None
        try:
            await sender.send(keys, lost)
        except EnqueueUnknown as error:
            told = error.task_ids
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert told == [lost.task_id]
        own.run(plain("PING"))
        await sender.send(keys, following)
        await driver.close()

    asyncio.run(main())
    assert following.task_id in stored(own, keys), "acknowledged, and nowhere"


def test_a_number_of_unknown_fate_is_not_used_again_by_a_thread(server, own, own_keys):
    unknown_in_a_thread(sync_sender, server, own, own_keys)


def test_without_that_the_next_message_of_the_thread_vanishes(server, own, own_keys):
    module = module_without("streamwork.broker.sync_sender", "unknown_number")
    must_fail("unknown_number", "and nowhere", unknown_in_a_thread, module, server, own, own_keys)


def test_a_number_of_unknown_fate_is_not_used_again_by_a_loop(server, own, own_keys):
    unknown_on_a_loop(async_sender, server, own, own_keys)


def test_without_that_the_next_message_of_the_loop_vanishes(server, own, own_keys):
    name = "unknown_number_on_a_loop"
    module = module_without("streamwork.broker.async_sender", name)
    must_fail(name, "and nowhere", unknown_on_a_loop, module, server, own, own_keys)


def gives_up(module, **settings):
    """The clock is the argument, so a whole outage passes at once."""
    patience, error = module.Patience(ClientConfig(**settings), 0.0), StoreUnavailable("no answer", maybe_executed=True)
    for second in range(SENDER_LIFE_MS // 1000):
        try:
            patience.pause_s(error, float(second), ["id"])
        except EnqueueUnknown:
            return
    raise AssertionError("still sent again when the server has forgotten the number")


AN_HOUR = {"send_timeout_s": 3600.0, "resend_s": 3600.0}


def test_resends_stop_while_the_server_remembers_the_number():
    gives_up(resend)
    gives_up(resend, **AN_HOUR)


def test_without_a_bound_they_do_not():
    must_fail("resend_bound", "still sent again", gives_up, module_without("streamwork.broker.resend", "resend_bound"))


def test_without_a_bound_of_our_own_the_settings_can_undo_it():
    module = module_without("streamwork.broker.resend", "resend_bound_of_ours")
    must_fail("resend_bound_of_ours", "still sent again", gives_up, module, **AN_HOUR)


def scheduled_once(own, keys):
    message = outgoing()._replace(when="+1")
    command = Sender(64).command(keys, [message], 0)
    own.run(command)
    own.run(plain("DEL", keys.due, keys.due_body))  # promoted, run and ended, while its answer was lost
    own.run(command)
    assert own.run(plain("ZCARD", keys.due)) == 0, "scheduled again after a lost answer"


def test_a_lost_answer_schedules_nothing_twice(own, own_keys):
    scheduled_once(own, own_keys)


def test_without_numbers_what_ended_is_scheduled_again(own, own_keys):
    must_fail("schedule_numbers", "scheduled again", scheduled_once, own, own_keys)
