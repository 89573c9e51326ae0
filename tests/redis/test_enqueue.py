"""enqueue.lua: once per chunk number, whole or not at all, and somebody hears of it (rules 1, 3, 4, 6, 33)."""

from __future__ import annotations

import random

import pytest

from streamwork.errors import StoreError, StoreFull
from streamwork.ids import random_id
from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.helpers import state_of
from tests.redis.kit import LANE, bell, deliver, dump, full, outgoing, put, read, settle, signals


def send(driver, keys, number, *messages, sender="s1", most_lanes=64):
    lanes = list(dict.fromkeys(message.lane for message in messages))
    items = [part for message in messages for part in (lanes.index(message.lane) + 1, message.body)]
    return driver.run(scripts.enqueue(keys, sender, number, lanes, items, 1, most_lanes))


def test_a_chunk_is_on_its_lanes_in_order_counted_and_rung_for(driver, keys):
    first, second, third = outgoing(), outgoing("3:gpu"), outgoing()
    ids = send(driver, keys, 1, first, second, third)
    state = state_of(driver, keys)
    assert [(entry, fields["d"]) for entry, fields in state.lanes[LANE]] == [(ids[0], first.body), (ids[2], third.body)]
    assert [(entry, fields["d"]) for entry, fields in state.lanes["3:gpu"]] == [(ids[1], second.body)]
    assert state.added == {LANE: 2, "3:gpu": 1}
    assert (bell(driver, keys), bell(driver, keys, "3:gpu")) == (1, 1)


def test_a_resent_number_answers_what_it_answered_and_adds_nothing(driver, keys, namespace):
    messages = [outgoing(), outgoing("3:gpu"), outgoing()]
    ids = send(driver, keys, 1, *messages)
    before = dump(driver, namespace)
    for _ in range(3):
        assert send(driver, keys, 1, *messages) == ids
    assert dump(driver, namespace) == before


def test_a_resend_after_the_messages_ended_does_not_run_them_again(driver, keys):
    message = outgoing()
    ids = send(driver, keys, 1, message)
    (delivery,) = read(driver, keys, "w1")
    assert settle(driver, keys, delivery)
    assert send(driver, keys, 1, message) == ids
    assert read(driver, keys, "w2") == []
    assert state_of(driver, keys).added == {LANE: 1}


def test_only_the_last_number_is_remembered_and_any_other_is_a_gap_that_writes_nothing(driver, keys, namespace):
    for number in (1, 2, 3):
        send(driver, keys, number, outgoing())
    before = dump(driver, namespace)
    for number in (1, 2, 5, 100):
        with pytest.raises(StoreError, match=f"ENQUEUE-GAP chunk {number} after 3"):
            send(driver, keys, number, outgoing("6:new"))
    assert dump(driver, namespace) == before
    send(driver, keys, 4, outgoing())
    assert state_of(driver, keys).added == {LANE: 4}


def test_senders_do_not_know_of_each_other(driver, keys):
    send(driver, keys, 1, outgoing(), sender="a")
    send(driver, keys, 1, outgoing(), sender="b")
    send(driver, keys, 2, outgoing(), sender="a")
    assert state_of(driver, keys).added == {LANE: 3}


def test_the_mark_lives_for_ten_minutes_after_the_last_chunk(driver, keys):
    send(driver, keys, 1, outgoing())
    left = driver.run(plain("PTTL", keys.sender("s1")))
    assert 590_000 < left <= 600_000
    driver.run(plain("PEXPIRE", keys.sender("s1"), 1000))
    send(driver, keys, 2, outgoing())
    assert driver.run(plain("PTTL", keys.sender("s1"))) > 590_000


def test_random_resends_add_each_chunk_once(driver, keys):
    draw = random.Random(7)
    lanes = ["0:", LANE, "3:gpu", "3:eu,gpu"]
    expected = []
    for number in range(1, 60):
        chunk = [outgoing(draw.choice(lanes)) for _ in range(draw.randint(1, 9))]
        answers = {tuple(send(driver, keys, number, *chunk)) for _ in range(draw.choice((1, 1, 2, 4)))}
        assert len(answers) == 1
        expected += [(message.lane, entry, message.body) for message, entry in zip(chunk, answers.pop(), strict=True)]
    state = state_of(driver, keys)
    assert sorted(expected) == sorted(
        (lane, entry, fields["d"]) for lane, rows in state.lanes.items() for entry, fields in rows
    )
    assert state.backlog == len(expected)


def test_a_lane_comes_with_its_group_at_the_start(driver, keys):
    send(driver, keys, 1, outgoing("3:gpu"))
    (group,) = driver.run(plain("XINFO", "GROUPS", keys.lane("3:gpu")))
    facts = dict(zip(group[::2], group[1::2], strict=True))
    assert (facts[b"name"], facts[b"last-delivered-id"]) == (b"workers", b"0-0")
    assert len(read(driver, keys, "w", lane="3:gpu")) == 1


def test_a_group_that_is_there_already_is_kept(driver, keys):
    deliver(driver, keys, "w1")
    driver.run(plain("DEL", keys.lanes))
    send(driver, keys, 1, outgoing())
    assert len(read(driver, keys, "w2")) == 1  # only the new one: the cursor did not move back


def test_one_lane_too_many_is_refused_before_anything_is_written(driver, keys, namespace):
    send(driver, keys, 1, outgoing("0:"), outgoing("3:"), most_lanes=2)
    before = dump(driver, namespace)
    with pytest.raises(StoreError, match="ENQUEUE-LANES 2"):
        send(driver, keys, 2, outgoing("0:"), outgoing("6:"), most_lanes=2)
    assert dump(driver, namespace) == before
    send(driver, keys, 2, outgoing("0:"), outgoing("3:"), most_lanes=2)
    assert state_of(driver, keys).added == {"0:": 2, "3:": 2}


def test_only_a_new_lane_is_announced(driver, keys):
    send(driver, keys, 1, outgoing(), outgoing("3:gpu"))
    send(driver, keys, 2, outgoing())
    send(driver, keys, 3, outgoing("3:gpu"), outgoing("6:"))
    assert signals(driver, keys) == [("lane", LANE), ("lane", "3:gpu"), ("lane", "6:")]


def test_a_bell_holds_one_token_and_levels_of_a_tag_set_share_it(driver, keys):
    send(driver, keys, 1, outgoing("0:gpu"), outgoing("3:gpu"))
    send(driver, keys, 2, outgoing("0:gpu"))
    assert bell(driver, keys, "0:gpu") == 1
    assert keys.bell("0:gpu") == keys.bell("3:gpu") != keys.bell("0:")
    driver.run(plain("RPOP", keys.bell("0:gpu")))
    send(driver, keys, 3, outgoing("3:gpu"))
    assert bell(driver, keys, "3:gpu") == 1


@pytest.mark.parametrize("there", ["new lane", "known lane"])
def test_a_full_redis_refuses_it_whole(own, own_keys, there):
    if there == "known lane":
        send(own, own_keys, 1, outgoing())
    before = dump(own, "own")
    with full(own):
        with pytest.raises(StoreFull, match="maxmemory"):
            send(own, own_keys, 2 if before else 1, outgoing(), outgoing("3:gpu"))
        assert dump(own, "own") == before
    send(own, own_keys, 2 if before else 1, outgoing(), outgoing("3:gpu"))
    assert state_of(own, own_keys).undelivered == (3 if before else 2)


@pytest.mark.parametrize("broken", ["sender", "lanes", "second lane"])
def test_a_key_of_another_type_is_found_before_anything_is_written(server, own, own_keys, broken):
    keys = own_keys
    name = {"sender": keys.sender("s1"), "second lane": keys.lane("3:gpu"), "bell": keys.bell("3:gpu")}.get(broken)
    name = name or getattr(keys, broken)
    own.run(plain("SADD", name, "foreign"))
    before = dump(own, "own")
    with pytest.raises(StoreError):
        send(own, keys, 1, outgoing(), outgoing("3:gpu"))
    assert dump(own, "own") == before


@pytest.mark.parametrize("broken", ["added", "control", "bell"])
def test_a_foreign_counter_or_bell_does_not_refuse_what_is_on_its_lane(own, own_keys, broken):
    keys = own_keys
    name = keys.bell(LANE) if broken == "bell" else getattr(keys, broken)
    own.run(plain("SADD", name, "foreign"))
    ids = send(own, keys, 1, outgoing())
    assert send(own, keys, 1, outgoing()) == ids
    assert [delivery.entry.decode() for delivery in read(own, keys, "w")] == ids


def test_after_flushall_the_next_chunk_is_taken_and_its_group_is_there(own, own_keys):
    send(own, own_keys, 1, outgoing())
    own.run(plain("FLUSHALL"))
    ids = send(own, own_keys, 2, outgoing())
    assert [delivery.entry.decode() for delivery in read(own, own_keys, "w")] == ids
    assert send(own, own_keys, 2, outgoing()) == ids
    assert state_of(own, own_keys).added == {LANE: 1}


def test_a_stream_that_someone_made_by_hand_becomes_a_lane(driver, keys):
    driver.run(plain("XADD", keys.lane(LANE), "*", "junk", "x"))
    message = outgoing()
    send(driver, keys, 1, message)
    assert list(state_of(driver, keys).lanes) == [LANE]
    assert signals(driver, keys) == [("lane", LANE)]
    rows = driver.run(scripts.read_new([(keys.lane(LANE),)], "w", 10, None))[0][1]
    assert [fields for _, fields in rows] == [[b"junk", b"x"], [b"d", message.body]]


def test_five_hundred_messages_are_one_answer(driver, keys):
    messages = [outgoing(value=n) for n in range(500)]
    ids = send(driver, keys, 1, *messages, sender=random_id())
    assert len(set(ids)) == 500
    assert [delivery.body for delivery in read(driver, keys, "w")] == [message.body for message in messages]


def test_what_put_sends_is_what_read_gets(driver, keys):
    assert [m.task_id for m in put(driver, keys, 3)] == [d.task_id for d in read(driver, keys, "w")]


def test_a_lane_that_was_deleted_is_made_anew_and_its_loss_is_told(driver, keys):
    put(driver, keys)
    driver.run(plain("DEL", keys.lane(LANE)))
    put(driver, keys)
    assert signals(driver, keys) == [("lane", LANE), ("lost", LANE)]
    assert len(read(driver, keys, "w1")) == 1
