"""heal.lua: a lost group is there again at once, for what comes, and what came before is noted (rules 4, 8)."""

from __future__ import annotations

import pytest

from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.failures import NoGroup
from tests.helpers import state_of
from tests.redis.kit import (
    LANE,
    deliver,
    end,
    full,
    outgoing,
    put,
    read,
    settle,
    signals,
)
from tests.redis.lost import adopt, destroy, heal, maintain, note, restored


def test_reading_without_a_group_says_so(driver, keys):
    with pytest.raises(NoGroup):
        read(driver, keys, "w1")


def test_a_group_that_is_there_is_left_alone(driver, keys):
    (held,) = deliver(driver, keys, "w1")
    assert heal(driver, keys) == "there"
    assert note(driver, keys) is None
    assert settle(driver, keys, held)


def test_what_comes_after_the_loss_is_read_at_once_and_what_came_before_is_noted(driver, keys):
    put(driver, keys, 3)
    last = driver.run(plain("XREVRANGE", keys.lane(LANE), "+", "-", "COUNT", 1))[0][0]
    destroy(driver, keys)
    assert heal(driver, keys) == "0"
    mark, to, instant = note(driver, keys).split()
    assert (mark, to) == (b"0", last)
    assert int(instant) > 1_600_000_000_000_000
    assert signals(driver, keys)[-1] == ("returned", LANE)
    new = put(driver, keys, 2)
    assert [d.task_id for d in read(driver, keys, "w1")] == [m.task_id for m in new]


def test_a_lane_that_fell_off_the_list_is_told_as_a_new_one(driver, keys):
    put(driver, keys)
    told = signals(driver, keys)
    driver.run(plain("DEL", keys.lanes, keys.lane(LANE)))
    heal(driver, keys)
    assert signals(driver, keys)[len(told) :] == [("lane", LANE), ("returned", LANE)]


def test_a_lane_where_all_is_settled_needs_no_restoring(driver, keys):
    for delivery in deliver(driver, keys, "w1", 5):
        assert settle(driver, keys, delivery)
    maintain(driver, keys)
    destroy(driver, keys)
    heal(driver, keys)
    assert note(driver, keys) is None
    assert read(driver, keys, "w2") == []


def test_where_the_note_cannot_be_kept_the_group_starts_at_the_mark(driver, keys):
    held = deliver(driver, keys, "w1", 3)
    assert settle(driver, keys, held[0])
    maintain(driver, keys)
    driver.run(plain("SET", keys.restoring, "foreign"))
    destroy(driver, keys)
    heal(driver, keys)
    driver.run(plain("DEL", keys.restoring))
    assert [d.entry for d in read(driver, keys, "w2")] == [d.entry for d in held[1:]]


def test_after_the_stream_is_gone_an_old_mark_hides_nothing(driver, keys, redis_url):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery)
    maintain(driver, keys)
    driver.run(plain("DEL", keys.lane(LANE)))
    assert heal(driver, keys) == "gone 0"
    driver.run(plain("XADD", keys.lane(LANE), "5-1", "d", delivery.body))  # a clock that stepped back
    assert [d.entry for d in read(driver, keys, "w1")] == [b"5-1"]
    maintain(driver, keys)
    assert driver.run(plain("HGET", keys.low, LANE)) == b"5-0"


def test_what_was_on_a_deleted_lane_is_told_and_does_not_count_as_waiting(driver, keys):
    held = deliver(driver, keys, "w1", 5)
    assert settle(driver, keys, held[0])
    driver.run(plain("DEL", keys.lane(LANE)))
    assert heal(driver, keys) == "gone 4"
    assert (state_of(driver, keys).added, state_of(driver, keys).settled) == ({LANE: 5}, {LANE: 5})
    assert not settle(driver, keys, held[1])
    assert state_of(driver, keys).settled == {LANE: 5}


def test_a_mark_that_is_ahead_of_all_entries_hides_nothing(driver, keys, redis_url):
    driver.run(plain("XGROUP", "CREATE", keys.lane(LANE), "workers", "0", "MKSTREAM"))
    driver.run(plain("XADD", keys.lane(LANE), "5-1", "d", outgoing().body))
    driver.run(plain("HSET", keys.low, LANE, "99-0"))
    destroy(driver, keys)
    heal(driver, keys)
    restored(redis_url, keys)
    assert [d.entry for d in adopt(driver, keys)] == [b"5-1"]


def test_after_flushall_lane_and_group_are_there_again(own, own_keys):
    deliver(own, own_keys, "w1")
    own.run(plain("FLUSHALL"))
    assert heal(own, own_keys) == "gone -"
    assert own.run(plain("HKEYS", own_keys.lanes)) == [LANE.encode()]
    assert note(own, own_keys) is None
    put(own, own_keys)
    assert len(read(own, own_keys, "w1")) == 1


def test_a_full_redis_can_be_healed_and_drained(server, own, own_keys):
    held = deliver(own, own_keys, "w1", 252)
    # More than one step, and the first one only moves the note.
    assert own.run(scripts.settle(own_keys, "w1", [end(own_keys, d) for d in held[:250]])) == []
    destroy(own, own_keys)
    with full(own):
        heal(own, own_keys)
        restored(server.url, own_keys)
        again = adopt(own, own_keys)
        assert [d.entry for d in again] == [d.entry for d in held[250:]]
        assert all(settle(own, own_keys, d) for d in again)


def test_two_who_heal_at_once_do_no_harm(driver, keys, redis_url):
    put(driver, keys, 2)
    destroy(driver, keys)
    assert heal(driver, keys) == "0"
    first = note(driver, keys)
    assert heal(driver, keys) == "there"
    assert note(driver, keys) == first
    restored(redis_url, keys)
    assert len(adopt(driver, keys)) == 2
