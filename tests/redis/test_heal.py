"""heal.lua: a lost group comes back where it left off, never behind what waits (rules 4, 8)."""

from __future__ import annotations

import pytest

from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.failures import NoGroup
from tests.redis.kit import LANE, deliver, put, read, settle


def heal(driver, keys):
    return driver.run(scripts.heal(keys, LANE, 1))


def destroy(driver, keys):
    assert driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "workers")) == 1


def test_reading_without_a_group_says_so(driver, keys):
    with pytest.raises(NoGroup):
        read(driver, keys, "w1")


def test_a_group_that_is_there_is_left_alone(driver, keys):
    (held,) = deliver(driver, keys, "w1")
    assert heal(driver, keys) == "there"
    assert settle(driver, keys, held)


def test_what_was_settled_before_the_mark_does_not_run_again(driver, keys):
    for delivery in deliver(driver, keys, "w1", 100):
        assert settle(driver, keys, delivery)
    driver.run(scripts.maintain(keys, LANE, "0", 1000))
    waiting = put(driver, keys, 3)
    destroy(driver, keys)
    heal(driver, keys)
    assert [d.task_id for d in read(driver, keys, "w2")] == [m.task_id for m in waiting]


def test_what_was_in_flight_runs_again(driver, keys):
    held = deliver(driver, keys, "w1", 3)
    assert settle(driver, keys, held[0])
    driver.run(scripts.maintain(keys, LANE, "0", 1000))
    destroy(driver, keys)
    heal(driver, keys)
    assert [d.entry for d in read(driver, keys, "w2")] == [d.entry for d in held[1:]]


def test_without_a_mark_it_starts_at_the_beginning(driver, keys):
    waiting = put(driver, keys, 2)
    destroy(driver, keys)
    assert heal(driver, keys) == "0"
    assert [d.task_id for d in read(driver, keys, "w1")] == [m.task_id for m in waiting]


def test_after_the_stream_is_gone_an_old_mark_hides_nothing(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery)
    driver.run(scripts.maintain(keys, LANE, "0", 1000))
    driver.run(plain("DEL", keys.lane(LANE)))
    assert heal(driver, keys) == "0"
    driver.run(plain("XADD", keys.lane(LANE), "5-1", "d", delivery.body))  # a clock that stepped back
    assert [d.entry for d in read(driver, keys, "w1")] == [b"5-1"]
    driver.run(scripts.maintain(keys, LANE, "0", 1000))
    assert driver.run(plain("HGET", keys.low, LANE)) == b"5-0"


def test_after_flushall_lane_and_group_are_there_again(own, own_keys):
    deliver(own, own_keys, "w1")
    own.run(plain("FLUSHALL"))
    assert heal(own, own_keys) == "0"
    assert own.run(plain("HKEYS", own_keys.lanes)) == [LANE.encode()]
    put(own, own_keys)
    assert len(read(own, own_keys, "w1")) == 1


def test_two_who_heal_at_once_do_no_harm(driver, keys):
    put(driver, keys, 2)
    destroy(driver, keys)
    assert heal(driver, keys) == "0"
    first = read(driver, keys, "w1", count=1)
    assert heal(driver, keys) == "there"
    assert len(first + read(driver, keys, "w2")) == 2
