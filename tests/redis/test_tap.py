"""tap.lua: a group of its own on each lane, from now on, from an instant on, or from where it stood."""

from __future__ import annotations

import pytest

from streamwork.errors import StoreFull
from streamwork.store.commands import plain
from streamwork.store.tapping import TAP_LIFE_MS, tap, tap_read
from tests.redis.kit import LANE, deliver, full, put, settle

HIGH = "3:"


def join(driver, keys, *lanes, since="$", **read):
    return driver.run(tap(keys, "t", {lane: read.get(lane, b"") for lane in lanes or (LANE,)}, since, 7))


def stands(driver, keys, lane=LANE):
    """Return where the tap stands, None where it has no group."""
    groups = driver.run(plain("XINFO", "GROUPS", keys.lane(lane)))
    facts = [dict(zip(group[::2], group[1::2], strict=True)) for group in groups]
    return next((one[b"last-delivered-id"] for one in facts if one[b"name"] == b"tap:t"), None)


def known(driver, keys):
    flat = driver.run(plain("HGETALL", keys.taps))
    return dict(zip((one.decode() for one in flat[::2]), (one.decode() for one in flat[1::2]), strict=True))


def last(driver, keys, lane=LANE):
    return driver.run(plain("XREVRANGE", keys.lane(lane), "+", "-", "COUNT", 1))[0][0]


def test_a_new_one_begins_now_and_lives_for_a_day(driver, keys):
    put(driver, keys, 3)
    assert join(driver, keys) is True
    assert stands(driver, keys) == last(driver, keys)
    assert known(driver, keys) == {"t": "7", f"t {LANE}": "3"}
    assert TAP_LIFE_MS - 60_000 < driver.run(plain("PTTL", keys.tap("t"))) <= TAP_LIFE_MS


def test_lanes_that_come_later_are_read_from_their_first_entry(driver, keys):
    put(driver, keys, 3)
    join(driver, keys)
    put(driver, keys, 2, HIGH)
    assert join(driver, keys, LANE, HIGH) is False
    assert stands(driver, keys, HIGH) == b"0-0"
    assert known(driver, keys) == {"t": "7", f"t {LANE}": "3", f"t {HIGH}": "0"}


def test_one_that_is_there_goes_on_where_it_stood(driver, keys):
    put(driver, keys, 1)
    join(driver, keys)
    place = stands(driver, keys)
    put(driver, keys, 2)
    assert join(driver, keys) is False
    assert (stands(driver, keys), known(driver, keys)[f"t {LANE}"]) == (place, "1")


def test_from_an_instant_on_how_many_were_before_is_not_known(driver, keys):
    put(driver, keys, 2)
    driver.run(plain("HSET", keys.taps, f"t {LANE}", "77"))  # of a tap of that name whose end was cut short
    assert join(driver, keys, since="5-0") is True
    assert stands(driver, keys) == b"5-0"
    assert known(driver, keys) == {"t": "7"}


def test_a_group_that_was_lost_is_made_where_it_was_read_to(driver, keys):
    put(driver, keys, 3)
    join(driver, keys)
    first = driver.run(plain("XRANGE", keys.lane(LANE), "-", "+", "COUNT", 1))[0][0]
    driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "tap:t"))
    join(driver, keys, **{LANE: first})
    assert stands(driver, keys) == first


def test_a_stream_that_was_made_anew_is_read_from_its_first_entry(driver, keys):
    put(driver, keys, 3)
    join(driver, keys)
    driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "tap:t"))
    join(driver, keys, **{LANE: b"99999999999999-0"})
    assert stands(driver, keys) == b"0-0"


def test_a_lane_that_is_not_there_is_not_made(driver, keys):
    assert join(driver, keys) is True
    assert driver.run(plain("EXISTS", keys.lane(LANE))) == 0


def test_the_group_of_the_workers_is_not_touched(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    workers = lambda: driver.run(plain("XINFO", "GROUPS", keys.lane(LANE)))[-1]
    before = workers()
    join(driver, keys)
    driver.run(tap_read(keys, "t", [LANE], 10, 1_000))
    assert workers() == before
    assert settle(driver, keys, delivery)


def test_a_full_redis_begins_no_tap(own, own_keys):
    put(own, own_keys)
    with full(own), pytest.raises(StoreFull):
        join(own, own_keys)
    assert (known(own, own_keys), stands(own, own_keys)) == ({}, None)
