"""trim.lua: the journal goes up to an id, in steps or exactly, and what went is noted, also when Redis is full."""

from __future__ import annotations

import pytest

from streamwork.store import healing
from streamwork.store.commands import plain
from tests.redis.kit import full


def fill(driver, keys, count):
    for at in range(1, count + 1):
        driver.run(plain("XADD", keys.journal, f"{at}-0", "j", "x"))


def left(driver, keys):
    return [int(row[0].partition(b"-")[0]) for row in driver.run(plain("XRANGE", keys.journal, "-", "+"))]


def notes(driver, keys):
    return driver.run(plain("HGETALL", keys.trimmed))


@pytest.fixture(autouse=True)
def nothing_is_left(driver, keys):
    yield
    driver.run(plain("DEL", keys.journal))


def test_exactly_what_is_below_an_id_goes(driver, keys):
    fill(driver, keys, 10)
    assert driver.run(healing.trim(keys, "4-0", 0, 99, "by count")) == 3
    assert left(driver, keys) == list(range(4, 11))
    assert notes(driver, keys) == [b"journal", b"4-0 99 by count"]
    assert driver.run(healing.trim(keys, "5", 0, 100, "by age")) == 1
    assert notes(driver, keys) == [b"journal", b"5-0 100 by age"]


def test_in_steps_whole_nodes_go_and_the_note_says_what_is_left(driver, keys):
    fill(driver, keys, 350)
    assert driver.run(healing.trim(keys, "340", 200, 99, "by age")) == 200
    assert left(driver, keys)[0] == 201
    assert notes(driver, keys) == [b"journal", b"201-0 99 by age"]
    assert driver.run(healing.trim(keys, "340", 200, 100, "by age")) == 100
    assert notes(driver, keys) == [b"journal", b"301-0 100 by age"]
    assert driver.run(healing.trim(keys, "340", 200, 101, "by age")) == 0
    assert notes(driver, keys) == [b"journal", b"301-0 100 by age"]  # nothing went, so nothing is new


def test_where_all_went_the_note_says_so_up_to_the_id_that_was_asked(driver, keys):
    fill(driver, keys, 3)
    assert driver.run(healing.trim(keys, "700", 0, 99, "by age")) == 3
    assert notes(driver, keys) == [b"journal", b"700-0 99 by age"]


def test_a_full_redis_is_made_room_in_and_told_of(own, own_keys):
    fill(own, own_keys, 10)
    with full(own):
        assert own.run(healing.trim(own_keys, "4", 0, 99, "why")) == 3
    assert notes(own, own_keys) == [b"journal", b"4-0 99 why"]


def test_a_stranger_under_the_notes_does_not_hold_up_the_trim(driver, keys):
    fill(driver, keys, 3)
    driver.run(plain("SET", keys.trimmed, "x"))
    assert driver.run(healing.trim(keys, "2", 0, 99, "why")) == 1
    driver.run(plain("DEL", keys.trimmed))
