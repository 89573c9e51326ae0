"""cancel.lua: commit only what was removed here, mark what may still end, leave nothing behind (rules 10, 25)."""

from __future__ import annotations

import threading

import pytest

from streamwork.errors import StoreError
from streamwork.store import healing, scripts
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.wire.message import encode_result
from tests.helpers import body_of, seed, state_of
from tests.redis.kit import LANE, deliver, dump, end, hand_over, journal, put, read, settle, signals

RECORD = encode_result("cancel", "cancelled", b"\xc0")


def cancel(driver, keys, task_id, entry=None, keep_ms=60_000, client="me", terminate=False):
    where = {} if entry is None else {"lane": LANE, "entry": entry.decode()}
    return driver.run(scripts.cancel(keys, task_id, "me", RECORD, keep_ms, client, **where, terminate=terminate))


def test_what_is_due_is_cancelled_here_and_now(driver, keys):
    driver.run(scripts.watch(keys, "me", 60_000))
    message, other = body_of("tests.echo"), body_of("tests.echo")
    seed(driver, keys, message, other, due_at_ms=4_000_000_000_000)
    assert cancel(driver, keys, message[0]) == "cancelled"
    state = state_of(driver, keys)
    assert (list(state.due), list(state.due_body)) == ([other[0]], [other[0]])
    assert (state.results[message[0]].state, state.counts) == ("cancelled", {"cancelled": 1})
    _, fields = driver.run(plain("XREVRANGE", keys.reply("me"), "+", "-", "COUNT", 1))[0]
    assert fields == [b"i", message[0].encode(), b"v", RECORD]
    assert cancel(driver, keys, message[0]) == "cancelled"  # as when the first answer was lost
    assert (state_of(driver, keys).counts, state_of(driver, keys).cancelled) == ({"cancelled": 1}, {})


@pytest.mark.parametrize("is_known", [True, False])
def test_what_runs_is_marked_and_the_end_decides(driver, keys, is_known):
    (delivery,) = deliver(driver, keys, "w1")
    assert cancel(driver, keys, delivery.task_id, delivery.entry if is_known else None) == "requested"
    state = state_of(driver, keys)
    assert (state.cancelled, state.results, state.counts) == ({delivery.task_id: "me"}, {}, {})
    assert signals(driver, keys)[-1] == ("cancel", delivery.task_id)
    assert settle(driver, keys, delivery)
    state = state_of(driver, keys)
    assert (state.cancelled, state.results[delivery.task_id].state) == ({}, "succeeded")


def test_that_a_run_is_to_be_ended_is_told_besides_and_not_taken_back_by_a_plain_cancel(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert cancel(driver, keys, delivery.task_id, delivery.entry, terminate=True) == "requested"
    assert signals(driver, keys)[-2:] == [("cancel", delivery.task_id), ("terminate", delivery.task_id)]
    assert cancel(driver, keys, delivery.task_id, delivery.entry) == "requested"
    assert signals(driver, keys)[-1] == ("cancel", delivery.task_id)
    assert state_of(driver, keys).cancelled == {delivery.task_id: "me terminate"}
    assert settle(driver, keys, delivery, "C")
    assert state_of(driver, keys).cancelled == {}


def test_a_plain_cancel_may_be_followed_by_one_that_ends_the_run(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert cancel(driver, keys, delivery.task_id, delivery.entry) == "requested"
    assert cancel(driver, keys, delivery.task_id, delivery.entry, terminate=True) == "requested"
    assert state_of(driver, keys).cancelled == {delivery.task_id: "me terminate"}


def test_a_retry_of_what_is_marked_is_due_at_once(driver, keys):
    marked, other = deliver(driver, keys, "w1", 2)
    assert cancel(driver, keys, marked.task_id, marked.entry) == "requested"
    for delivery in (marked, other):
        assert settle(driver, keys, delivery, "R", run_at=4_000_000_000_000)
    assert state_of(driver, keys).due == {marked.task_id: 0, other.task_id: 4_000_000_000_000}


def test_what_waits_on_its_lane_is_marked(driver, keys):
    deliver(driver, keys, "w1")
    (message,) = put(driver, keys)
    entry = state_of(driver, keys).lanes[LANE][-1][0].encode()
    assert cancel(driver, keys, message.task_id, entry) == "requested"
    (delivery,) = read(driver, keys, "w1")
    assert settle(driver, keys, delivery, "C")
    assert state_of(driver, keys).cancelled == {}


def test_what_waits_after_a_retry_is_marked(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, "R", run_at=1)
    driver.run(scripts.promote(keys, [LANE], 10))
    assert cancel(driver, keys, delivery.task_id, delivery.entry) == "requested"
    (second,) = read(driver, keys, "w1")
    assert settle(driver, keys, second, "Cm")


def test_a_mark_from_before_the_retry_goes_with_the_cancel_in_due(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert cancel(driver, keys, delivery.task_id, delivery.entry) == "requested"
    assert settle(driver, keys, delivery, "R")
    assert cancel(driver, keys, delivery.task_id, delivery.entry) == "cancelled"
    state = state_of(driver, keys)
    assert (state.cancelled, state.due, state.backlog) == ({}, {}, 0)


def test_what_a_worker_cancelled_has_ended(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, "C")
    assert cancel(driver, keys, delivery.task_id, delivery.entry) == "ended"


def test_while_a_lost_group_is_restored_nobody_is_told_that_it_has_ended(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "workers"))
    driver.run(healing.heal(keys, LANE, 1))
    assert cancel(driver, keys, delivery.task_id, delivery.entry) == "requested"
    assert state_of(driver, keys).cancelled == {delivery.task_id: "me"}


@pytest.mark.parametrize("op", "SKD")
def test_what_has_ended_leaves_no_mark_even_if_its_result_is_not_kept(driver, keys, namespace, op):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, op, keep_ms=0)
    before = dump(driver, namespace)
    assert cancel(driver, keys, delivery.task_id, delivery.entry) == "ended"
    assert dump(driver, namespace) == before


def test_what_is_dead_has_ended_also_for_one_who_knows_only_the_id(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, "D", keep_ms=0)
    assert cancel(driver, keys, delivery.task_id) == "ended"
    assert state_of(driver, keys).cancelled == {}


def test_after_flushall_it_has_ended(own, own_keys):
    (delivery,) = deliver(own, own_keys, "w1")
    own.run(plain("FLUSHALL"))
    assert cancel(own, own_keys, delivery.task_id, delivery.entry) == "ended"
    assert dump(own, "own") == {}


@pytest.mark.parametrize("keep_ms", [0, -1, "x", 1.5, "inf"])
def test_a_bad_retention_is_an_error_before_anything_is_removed(driver, keys, namespace, keep_ms):
    message = body_of("tests.echo")
    seed(driver, keys, message, due_at_ms=1)
    before = dump(driver, namespace)
    with pytest.raises(StoreError, match="CANCEL-NUMBER"):
        cancel(driver, keys, message[0], keep_ms=keep_ms)
    assert dump(driver, namespace) == before


@pytest.mark.parametrize("broken", ["counts", "cancelled", "due_body", "control"])
def test_a_key_of_another_type_is_an_error_before_anything_is_removed(own, own_keys, broken):
    own.run(plain("ZADD", own_keys.due, 1, "id"))
    own.run(plain("SADD", getattr(own_keys, broken), "foreign"))
    before = dump(own, "own")
    with pytest.raises(StoreError):
        cancel(own, own_keys, "id")
    assert dump(own, "own") == before


def test_against_promotion_exactly_one_of_both_wins(redis_url, driver, keys):
    messages = [body_of("tests.echo", n) for n in range(300)]
    seed(driver, keys, *messages, due_at_ms=1)
    answers = {}

    def promoter():
        mine = SyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        while mine.run(scripts.promote(keys, [LANE], 3)).moved:
            pass
        mine.close()

    thread = threading.Thread(target=promoter)
    thread.start()
    for task_id, _ in reversed(messages):
        answers[task_id] = cancel(driver, keys, task_id)
    thread.join()
    held = read(driver, keys, "w1")
    assert {d.task_id for d in held} == {task_id for task_id, answer in answers.items() if answer == "requested"}
    assert {"cancelled", "requested"} == set(answers.values())
    assert driver.run(scripts.settle(keys, "w1", [end(keys, d, "Cm") for d in held])) == []
    state = state_of(driver, keys)
    assert state.counts["cancelled"] == 300
    assert (state.cancelled, state.moved, state.backlog) == ({}, {}, 0)


def test_a_zombies_cancel_does_not_free_the_others_mark(driver, keys):
    (old,) = deliver(driver, keys, "w1")
    new = hand_over(driver, keys, old, "w2")
    cancel(driver, keys, old.task_id, old.entry)
    assert not settle(driver, keys, old, "R")
    assert state_of(driver, keys).cancelled == {old.task_id: "me"}
    assert settle(driver, keys, new, "C")


def test_only_what_is_cancelled_at_once_is_in_the_journal(driver, keys):
    message = body_of("tests.echo")
    seed(driver, keys, message, due_at_ms=4_000_000_000_000)
    (delivery,) = deliver(driver, keys, "w1")
    record = journal(delivery._replace(task_id=message[0]), "C")
    for task_id, answer in ((message[0], "cancelled"), (message[0], "cancelled"), (delivery.task_id, "requested")):
        command = scripts.cancel(keys, task_id, "me", RECORD, 60_000, "me", journal=record)
        assert driver.run(command) == answer
    assert [(one.id, one.state) for one in state_of(driver, keys).journal] == [(message[0], "cancelled")]
    assert settle(driver, keys, delivery)


def test_a_stranger_under_the_journal_does_not_keep_a_cancel_from_its_end(driver, keys):
    message = body_of("tests.echo")
    seed(driver, keys, message, due_at_ms=4_000_000_000_000)
    driver.run(plain("SET", keys.journal, "x"))
    assert driver.run(scripts.cancel(keys, message[0], "me", RECORD, 60_000, "me", journal=b"j")) == "cancelled"
    driver.run(plain("DEL", keys.journal))
