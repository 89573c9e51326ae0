"""note.lua in maintain.lua: what is gone of a lane is noted, by what is left of it; trim.lua has its own tests."""

from __future__ import annotations

from streamwork.store import healing
from streamwork.store.commands import plain
from tests.redis.kit import LANE, deliver, settle

ALL = "99999999999999"


def maintain(driver, keys, oldest, why="by age"):
    return driver.run(healing.maintain(keys, LANE, oldest, 10_000, 7, why=why)).trimmed


def note(driver, keys):
    return driver.run(plain("HGET", keys.trimmed, LANE))


def test_what_went_of_a_lane_is_noted_up_to_what_is_left(driver, keys):
    held = deliver(driver, keys, "w1", 350)
    for delivery in held[:250]:
        assert settle(driver, keys, delivery)
    assert maintain(driver, keys, "1") == 0
    assert note(driver, keys) is None
    # Whole nodes go, and what is unsettled bounds the cut.
    first = maintain(driver, keys, ALL)
    assert 150 <= first < 250
    assert note(driver, keys) == held[first].entry + b" 7 by age"
    for delivery in held[250:]:
        assert settle(driver, keys, delivery)
    second = maintain(driver, keys, ALL, "Redis was nearly full")
    assert note(driver, keys) == held[first + second].entry + b" 7 Redis was nearly full"
    assert maintain(driver, keys, ALL) == 0


def test_each_lane_has_a_note_of_its_own(driver, keys):
    for lane in (LANE, "2:gpu"):
        for delivery in deliver(driver, keys, "w1", 150, lane):
            assert settle(driver, keys, delivery)
        driver.run(healing.maintain(keys, lane, ALL, 10_000, 7, why=lane))
    found = driver.run(plain("HGETALL", keys.trimmed))
    assert found[::2] == [LANE.encode(), b"2:gpu"]
    assert [text.split(b" ", 2)[2] for text in found[1::2]] == found[::2]
