"""tap_read.lua: what a tap has not read, the highest lane first, within bounds, and exactly how many it has missed."""

from __future__ import annotations

import pytest

from streamwork.store.commands import plain
from streamwork.store.tapping import TAP_LIFE_MS, tap, tap_read
from tests.redis.kit import LANE, deliver, full, put, settle, stored

LOW, HIGH = "0:", "3:gpu"


@pytest.fixture
def join(driver, keys):
    def join(*lanes, since="$", driver=driver, keys=keys):
        return driver.run(tap(keys, "t", dict.fromkeys(lanes or (LANE,), b""), since, 7))

    return join


def read(driver, keys, *lanes, most=100, most_bytes=1_000_000):
    """Return (messages, missed) by lane; None where it has to be joined."""
    answer = driver.run(tap_read(keys, "t", lanes or (LANE,), most, most_bytes))
    return None if answer.tapped is None else [(len(one.rows), one.missed) for one in answer.tapped]


def trim(driver, keys, most):
    driver.run(plain("XTRIM", keys.lane(LANE), "MAXLEN", most))


def test_each_message_is_read_once_and_nothing_is_pending(driver, keys, join):
    put(driver, keys, 1)
    join()
    messages = put(driver, keys, 25)
    answer = driver.run(tap_read(keys, "t", [LANE], 100, 1_000_000))
    assert answer.lanes == 1
    assert [fields[1] for _, fields in answer.tapped[0].rows] == [message.body for message in messages]
    assert read(driver, keys) == [(0, 0)]
    assert driver.run(plain("XPENDING", keys.lane(LANE), "tap:t"))[0] == 0
    assert driver.run(plain("XPENDING", keys.lane(LANE), "workers"))[0] == 0


def test_the_highest_lane_comes_first_and_both_bounds_hold(driver, keys, join):
    for lane in (LOW, LANE, HIGH):
        put(driver, keys, 1, lane)
    join(HIGH, LANE, LOW)
    for lane in (LOW, LANE, HIGH):
        put(driver, keys, 15, lane)
    assert read(driver, keys, HIGH, LANE, LOW, most=20) == [(15, 0), (5, 0), (0, 0)]
    assert read(driver, keys, HIGH, LANE, LOW, most_bytes=1) == [(0, 0), (10, 0), (0, 0)]
    assert read(driver, keys, HIGH, LANE, LOW) == [(0, 0), (0, 0), (15, 0)]


def test_what_was_trimmed_after_it_was_read_is_not_missed(driver, keys, join):
    put(driver, keys, 1)
    join()
    put(driver, keys, 5)
    assert read(driver, keys) == [(5, 0)]
    trim(driver, keys, 0)
    assert read(driver, keys) == [(0, 0)]
    put(driver, keys, 2)
    assert read(driver, keys) == [(2, 0)]


def test_what_was_trimmed_before_it_was_read_is_missed_and_counted_once(driver, keys, join):
    put(driver, keys, 1)
    join()
    put(driver, keys, 7)
    trim(driver, keys, 2)
    driver.run(plain("HSET", keys.trimmed, LANE, "5-0 99 why"))
    answer = driver.run(tap_read(keys, "t", [LANE], 100, 1_000_000))
    assert (len(answer.tapped[0].rows), answer.tapped[0].missed, answer.tapped[0].note) == (2, 5, b"5-0 99 why")
    assert read(driver, keys) == [(0, 0)]
    put(driver, keys, 3)
    trim(driver, keys, 0)
    assert read(driver, keys) == [(0, 3)]


def test_what_is_missed_is_told_with_the_first_of_what_is_left(driver, keys, join):
    put(driver, keys, 1)
    join()
    put(driver, keys, 30)
    trim(driver, keys, 25)
    assert [read(driver, keys, most=20), read(driver, keys, most=20)] == [[(20, 5)], [(5, 0)]]
    put(driver, keys, 10)
    assert read(driver, keys, most=4) == [(4, 0)]
    put(driver, keys, 1)
    trim(driver, keys, 3)
    assert [read(driver, keys, most=2), read(driver, keys, most=2)] == [[(2, 4)], [(1, 0)]]


def test_what_is_deleted_one_by_one_is_missed_once_the_rest_was_read(driver, keys, join):
    put(driver, keys, 1)
    join()
    put(driver, keys, 5)
    rows = driver.run(plain("XREVRANGE", keys.lane(LANE), "+", "-", "COUNT", 3))
    driver.run(plain("XDEL", keys.lane(LANE), rows[1][0]))
    assert [read(driver, keys, most=2), read(driver, keys, most=9)] == [[(2, 0)], [(2, 1)]]


def test_messages_of_a_deleted_lane_are_missed(driver, keys, join):
    put(driver, keys, 1)
    join()
    put(driver, keys, 4)
    driver.run(plain("DEL", keys.lane(LANE)))
    assert read(driver, keys) == [(0, 0)]
    put(driver, keys, 2)
    assert read(driver, keys) is None  # its group is gone
    join()
    assert read(driver, keys) == [(2, 4)]


def test_from_an_instant_on_missed_is_counted_once_all_was_read(driver, keys, join):
    put(driver, keys, 5)
    trim(driver, keys, 3)
    join(since="0-1")
    assert read(driver, keys) == [(3, 0)]
    put(driver, keys, 2)
    trim(driver, keys, 1)
    assert read(driver, keys) == [(1, 1)]


def test_entries_that_a_stranger_put_there_do_not_hide_what_is_missed_later(driver, keys, join):
    put(driver, keys, 1)
    join()
    driver.run(plain("XADD", keys.lane(LANE), "*", "any", "thing"))
    assert read(driver, keys) == [(1, 0)]
    put(driver, keys, 2)
    trim(driver, keys, 0)
    assert read(driver, keys) == [(0, 2)]


def test_without_its_liveness_it_has_to_be_joined_and_with_it_that_is_renewed(driver, keys, join):
    put(driver, keys, 1)
    assert read(driver, keys) is None
    join()
    driver.run(plain("PEXPIRE", keys.tap("t"), TAP_LIFE_MS // 4))
    assert read(driver, keys) == [(0, 0)]
    assert driver.run(plain("PTTL", keys.tap("t"))) > TAP_LIFE_MS // 2


def test_one_lane_without_its_group_keeps_the_others_unread(driver, keys, join):
    for lane in (LANE, HIGH):
        put(driver, keys, 1, lane)
    join(HIGH)
    put(driver, keys, 2, HIGH)
    assert read(driver, keys, HIGH, LANE) is None
    join(HIGH, LANE)
    assert read(driver, keys, HIGH, LANE) == [(2, 0), (1, 0)]


def test_what_workers_do_is_the_same_with_a_tap(driver, keys, join):
    put(driver, keys, 1)
    join()
    for delivery in deliver(driver, keys, "w1", 3):
        assert settle(driver, keys, delivery)
    assert read(driver, keys) == [(3, 0)]
    assert len(stored(driver, keys)) == 4


def test_a_full_redis_is_read(own, own_keys, join):
    put(own, own_keys, 1)
    join(driver=own, keys=own_keys)
    put(own, own_keys, 4)
    with full(own):
        assert read(own, own_keys) == [(4, 0)]
