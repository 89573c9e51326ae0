"""dead_retry.lua: a dead letter runs again once, in a new round, with nothing left of the last one (I1, I3)."""

from __future__ import annotations

import threading

import msgspec
import pytest

from streamwork.broker.dead import retrying
from streamwork.errors import StoreFull, StoreRejected
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.wire.message import decode_dead_letter
from tests.helpers import state_of
from tests.leaks import leaked
from tests.redis.burial import bury, letter_of, retry
from tests.redis.flowkit import Flow, c, g, k, t, u, with_window
from tests.redis.kit import LANE, dump, end, full, read, settle, signals


def promote(driver, keys):
    return driver.run(scripts.promote(keys, [LANE], 100)).moved


def test_it_is_due_at_once_in_the_next_round_and_its_result_is_gone(driver, keys, namespace):
    (delivery,) = bury(driver, keys)
    task_id = delivery.task_id
    assert state_of(driver, keys).results[task_id].state == "dead"
    assert retry(driver, keys, task_id) == {task_id: ""}
    state = state_of(driver, keys)
    assert (list(state.due), state.dead, state.results) == ([task_id], {}, {})
    assert signals(driver, keys)[-1][0] == "due"
    assert promote(driver, keys) == 1
    _, fields = driver.run(plain("XREVRANGE", keys.lane(LANE), "+", "-", "COUNT", 1))[0]
    assert fields == [b"a", b"1,0,0,2,0", b"d", delivery.body]
    record = state_of(driver, keys).journal[-1]
    assert (record.id, record.state, record.round, record.consumer) == (task_id, "requeued", 2, "me")
    (again,) = read(driver, keys, "w2")
    assert settle(driver, keys, again, "Sm")
    state = state_of(driver, keys)
    assert (state.results[task_id].state, state.counts) == ("succeeded", {"dead": 1, "succeeded": 1})
    assert leaked(driver, namespace) == []


def test_the_end_of_the_last_round_comes_too_late(driver, keys):
    (delivery,) = bury(driver, keys)
    retry(driver, keys, delivery.task_id)
    before = state_of(driver, keys)
    assert not settle(driver, keys, delivery._replace(consumer="w3"), "S")
    assert settle(driver, keys, delivery, "D")  # its own, sent again after a lost answer: it was committed
    assert state_of(driver, keys) == before


def test_two_who_retry_at_once_let_it_run_once(driver, keys, redis_url):
    ids = [each.task_id for each in bury(driver, keys, 50)]
    records = [letter_of(driver, keys, task_id) for task_id in ids]
    answers = []

    def hurry():
        own = SyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        answers.extend(own.run(retrying(keys, record, "me")) for record in records)
        own.close()

    threads = [threading.Thread(target=hurry) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers.count(""), answers.count("gone")) == (50, 150)
    assert promote(driver, keys) == 50


def test_what_is_no_dead_letter_or_another_one_by_now_is_left_alone(driver, keys):
    one, other = bury(driver, keys, 2)
    seen = letter_of(driver, keys, one.task_id)
    before = dump(driver, keys.namespace)
    edited = msgspec.structs.replace(seen, letter=seen.letter.replace(b"ValueError", b"OtherError"))
    assert driver.run(retrying(keys, edited, "me")) == "changed"
    assert driver.run(retrying(keys, msgspec.structs.replace(seen, id="0" * 32), "me")) == "gone"
    assert dump(driver, keys.namespace) == before
    driver.run(plain("ZREM", keys.dead, other.task_id))
    assert driver.run(retrying(keys, letter_of(driver, keys, other.task_id), "me")) == "gone"
    driver.run(plain("HDEL", keys.dead_body, other.task_id))


def test_a_key_of_another_type_refuses_it_whole(driver, keys):
    (delivery,) = bury(driver, keys)
    driver.run(plain("SET", keys.due, "x"))
    with pytest.raises(StoreRejected, match="DEAD-TYPE"):
        retry(driver, keys, delivery.task_id)
    driver.run(plain("DEL", keys.due))
    assert list(state_of(driver, keys).dead) == [delivery.task_id]


def test_a_full_redis_lets_it_run_again(own, own_keys):
    (delivery,) = bury(own, own_keys)
    with full(own):
        with pytest.raises(StoreFull):
            own.run(plain("SET", "x", "y"))
        assert retry(own, own_keys, delivery.task_id) == {delivery.task_id: ""}
        assert promote(own, own_keys) == 1


def died(flow, *limits):
    """Send a message with limits, run it, and let it die; returns its id."""
    (task_id,), (answer,) = flow.send(*limits)
    assert answer, "it waits in a line"
    (delivery,) = read(flow.driver, flow.keys, "w1")
    assert flow.driver.run(scripts.settle(flow.keys, "w1", [end(flow.keys, delivery, "D")])) == []
    return task_id


def test_it_asks_for_its_limits_anew_and_waits_in_line_where_there_is_no_room(driver, keys, namespace):
    flow = Flow(driver, keys)
    limits = (c(), g(), k(), t(1_000_000, burst=5))
    task_id = died(flow, *limits)
    assert msgspec.msgpack.decode(decode_dead_letter(letter_of(driver, keys, task_id).letter).limits) == [
        list(limit) for limit in with_window(limits)
    ]
    (other,), _ = flow.send(c())
    assert retry(driver, keys, task_id) == {task_id: ""}
    assert promote(driver, keys) == 1
    assert driver.run(plain("HKEYS", keys.parked_body)) == [task_id.encode()]
    (holder,) = read(driver, keys, "w1")
    assert (holder.task_id, settle(driver, keys, holder)) == (other, True)
    (again,) = read(driver, keys, "w1")
    assert (again.task_id, settle(driver, keys, again, "Sm")) == (task_id, True)
    assert driver.run(plain("HLEN", keys.flow)) == driver.run(plain("HLEN", keys.permits)) == 0
    assert leaked(driver, namespace) == []


def test_a_name_of_its_own_is_taken_again_and_another_who_has_it_is_told(driver, keys):
    flow = Flow(driver, keys)
    task_id = died(flow, u())
    (other,), _ = flow.send(u())
    why = retry(driver, keys, task_id)[task_id]
    assert why.startswith(f"task message {other} has not ended")
    (holder,) = read(driver, keys, "w1")
    assert settle(driver, keys, holder)
    assert retry(driver, keys, task_id) == {task_id: ""}
    _, (answer,) = flow.send(u(policy="r"))
    assert answer == "!" + task_id
