"""Rule 2: a forked child has nothing of its parent's that may be used by one process only."""

from __future__ import annotations

import asyncio
import signal
import threading

from streamwork import ids, links
from streamwork.broker import results, sync_sender
from streamwork.config import Config
from streamwork.store import sync_driver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.wire.message import decode_message
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.forked import in_child
from tests.helpers import wait_until
from tests.redis.kit import LANE, deliver, outgoing, settle


def single(sender, keys, messages):
    """Send messages one by one."""
    for message in messages:
        sender.line().send(keys, [message])


def bulk(sender, keys, messages):
    """Send messages as one bulk, a chunk each."""
    for _ in sender.send_chunks((keys, [message], None) for message in messages):
        pass


def children_send(module, way, server, own, keys):
    make = lambda: sync_driver.SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    sender, messages = module.SyncSender(make(), make, Config().client), [outgoing(value=n) for n in range(5)]
    way(sender, keys, messages[:3])
    # One each: where a child's first number is not the last that the server knows, the gap error saves it.
    for part in (messages[3:4], messages[4:]):
        in_child(way, sender, keys, part)
    stored = [decode_message(fields[1]).id for _, fields in own.run(plain("XRANGE", keys.lane(LANE), "-", "+"))]
    assert stored == [message.task_id for message in messages], "a child's message was acknowledged, and is nowhere"


def test_children_send_under_names_of_their_own(server, own, own_keys):
    children_send(sync_sender, single, server, own, own_keys)


def test_without_that_the_second_childs_messages_vanish(server, own, own_keys):
    module = module_without("streamwork.broker.sync_sender", "sender_of_a_pid")
    must_fail("sender_of_a_pid", "and is nowhere", children_send, module, single, server, own, own_keys)


def test_children_send_bulks_under_names_of_their_own(server, own, own_keys):
    children_send(sync_sender, bulk, server, own, own_keys)


def test_without_that_the_second_childs_bulk_vanishes(server, own, own_keys):
    module = module_without("streamwork.broker.sync_sender", "bulk_sender_of_a_pid")
    must_fail("bulk_sender_of_a_pid", "and is nowhere", children_send, module, bulk, server, own, own_keys)


def child_speaks(module, server):
    driver = module.SyncDriver(Endpoint(server.url), ())
    mine = driver.run(plain("CLIENT", "ID"))
    theirs = in_child(lambda: driver.run(plain("CLIENT", "ID")))
    assert theirs != mine, "the child speaks on its parent's connection"
    assert driver.run(plain("CLIENT", "ID")) == mine


def test_a_child_has_a_connection_of_its_own(server):
    child_speaks(sync_driver, server)


def test_without_that_it_speaks_on_its_parents(server):
    module = module_without("streamwork.store.sync_driver", "connection_of_a_pid")
    must_fail("connection_of_a_pid", "its parent's connection", child_speaks, module, server)


def child_hears(module, server, own, keys, within_s=10.0):
    driver = lambda: sync_driver.SyncDriver(Endpoint(server.url), ALL_SCRIPTS)
    waiting = module.Results(driver)
    waiting.watch(own, keys)
    (delivery,) = deliver(own, keys, "w1")

    def child():
        heard = []
        waiting.watch(driver(), keys)
        waiting.wait(keys, delivery.task_id, heard.append)
        settle(driver(), keys, delivery, reply=waiting.client_id)
        wait_until(lambda: heard, "the child hears of its result", within_s)

    try:
        in_child(child)
    finally:
        waiting.close()


def test_a_child_hears_of_its_results(server, own, own_keys):
    child_hears(results, server, own, own_keys)


def test_without_a_reset_it_waits_for_a_thread_that_is_not_there(server, own, own_keys):
    module = module_without("streamwork.broker.results", "listener_of_a_pid")
    match = "the child hears of its result"
    must_fail("listener_of_a_pid", match, child_hears, module, server, own, own_keys, within_s=1.0)


def child_needs_the_lock(module, server, within_s=10):
    mine = module.Links("own", Config(url=server.url))
    held, release = threading.Event(), threading.Event()

    def hold():
        with mine._lock:
            held.set()
            release.wait()

    def child():
        signal.alarm(within_s)  # a lock is waited for without end
        return mine.driver.run(plain("PING"))

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(10)
        assert in_child(child) == b"PONG"
    finally:
        release.set()
        holder.join()


def test_a_child_does_not_wait_for_a_lock_of_its_parent(server):
    child_needs_the_lock(links, server)


def test_without_a_reset_it_does_so_for_ever(server):
    module = module_without("streamwork.links", "fork_reset")
    must_fail("fork_reset", "the child died", child_needs_the_lock, module, server, within_s=1)


def children_draw(module):
    drawn = [module.random_id(), *(in_child(module.random_id) for _ in range(2))]
    drawn += [module.new_task_id()[13:], *(in_child(module.new_task_id)[13:] for _ in range(2))]
    assert len(set(drawn)) == len(drawn), "two processes drew one id"


def test_no_two_processes_draw_one_id():
    children_draw(ids)


def test_with_a_generator_that_forks_along_they_do():
    must_fail("uuid_randomness", "drew one id", children_draw, module_without("streamwork.ids", "uuid_randomness"))


def test_a_fork_inside_a_running_loop_hurts_neither_side(app):
    """The child has a copy of the loop, its connection and its selector, and may use none of them."""

    @app.task
    def noted(value: int) -> int:
        return value

    def child():
        mine = [noted.enqueue(n).id for n in range(3)]

        async def on_a_loop():
            handles = [await noted.aenqueue(n) for n in range(3)]
            await app.aclose()
            return [handle.id for handle in handles]

        return mine + asyncio.run(on_a_loop())

    async def main():
        sent = [(await noted.aenqueue(0)).id]
        for _ in range(3):
            sent += in_child(child)
            sent += [(await noted.aenqueue(n)).id for n in range(3)]
        await app.aclose()
        return sent

    sent = asyncio.run(main())
    keys = app.connection.keys("default")
    rows = app.connection.driver.run(plain("XRANGE", keys.lane(LANE), "-", "+"))
    assert [decode_message(fields[1]).id for _, fields in rows] == sent
    assert len(sent) == 28
