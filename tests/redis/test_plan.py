"""plan.lua: a schedule begins now, goes on from its watermark, rests and goes on from now (rule 27)."""

from __future__ import annotations

import pytest

from streamwork import Streamwork
from streamwork.errors import StoreFull
from streamwork.model.calendar import every
from streamwork.model.schedule import encode_schedule
from streamwork.schedules import schedule_of
from streamwork.store.commands import plain
from streamwork.store.planning import plan
from tests.redis.kit import dump, full, mark_of, set_mark, signals

NAME = "nightly"
ONE, TWO = b"one record", b"another one"
NEW = ("declare", "add", "replace")
MARK = 1_000


def record_of(driver, keys):
    return driver.run(plain("HGET", keys.schedules, NAME))


def between(driver, keys, before):
    """Whether the watermark is an instant since then."""
    at, _, _ = mark_of(driver, keys, NAME).partition(" ")
    return before <= int(at) <= driver.server_ms()


@pytest.fixture
def planned(driver, keys):
    """A schedule whose last occurrence was at 1,000 ms of 1970."""
    driver.run(plan(keys, NAME, "add", ONE))
    set_mark(driver, keys, NAME, MARK)
    driver.run(plain("DEL", keys.control))
    return keys


@pytest.mark.parametrize("mode", NEW)
def test_a_new_one_begins_now(driver, keys, mode):
    before = driver.server_ms()
    assert driver.run(plan(keys, NAME, mode, ONE)) == "done"
    assert record_of(driver, keys) == ONE
    assert between(driver, keys, before)
    assert mark_of(driver, keys, NAME).endswith(" -")
    assert signals(driver, keys) == [("schedules", NAME)]
    assert driver.run(plain("PTTL", keys.schedule_marks)) == driver.run(plain("PTTL", keys.schedules)) == -1


@pytest.mark.parametrize("mode", NEW)
def test_the_very_same_changes_nothing_and_says_nothing(driver, planned, mode):
    before = dump(driver, planned.namespace)
    assert driver.run(plan(planned, NAME, mode, ONE)) == "same"
    assert dump(driver, planned.namespace) == before


@pytest.mark.parametrize("mode", ["declare", "replace"])
def test_another_record_goes_on_from_the_watermark(driver, planned, mode):
    assert driver.run(plan(planned, NAME, mode, TWO)) == "done"
    assert (record_of(driver, planned), mark_of(driver, planned, NAME)) == (TWO, f"{MARK} -")
    assert signals(driver, planned) == [("schedules", NAME)]


@pytest.mark.parametrize("mode", ["declare", "replace"])
def test_another_record_keeps_a_pause(driver, planned, mode):
    driver.run(plan(planned, NAME, "pause"))
    assert driver.run(plan(planned, NAME, mode, TWO)) == "done"
    assert (record_of(driver, planned), mark_of(driver, planned, NAME)) == (TWO, f"{MARK} p")


def test_add_does_not_take_anothers_place(driver, planned):
    before = dump(driver, planned.namespace)
    assert driver.run(plan(planned, NAME, "add", TWO)) == "there"
    assert dump(driver, planned.namespace) == before


@pytest.mark.parametrize("mode", ["declare", "replace"])
@pytest.mark.parametrize("left", [None, "garbage"])
def test_a_record_without_a_watermark_gets_one(driver, planned, mode, left):
    driver.run(plain("HDEL", planned.schedule_marks, NAME))
    if left:
        driver.run(plain("HSET", planned.schedule_marks, NAME, left))
    before = driver.server_ms()
    assert driver.run(plan(planned, NAME, mode, ONE)) == "done"
    assert between(driver, planned, before)


def test_a_pause_keeps_the_mark_and_a_resume_goes_on_from_now(driver, planned):
    assert driver.run(plan(planned, NAME, "resume")) == "same"
    assert driver.run(plan(planned, NAME, "pause")) == "done"
    assert mark_of(driver, planned, NAME) == f"{MARK} p"
    assert driver.run(plan(planned, NAME, "pause")) == "same"
    before = driver.server_ms()
    assert driver.run(plan(planned, NAME, "resume")) == "done"
    assert between(driver, planned, before)
    assert mark_of(driver, planned, NAME).endswith(" -")
    assert driver.run(plan(planned, NAME, "resume")) == "same"
    assert record_of(driver, planned) == ONE
    assert signals(driver, planned) == [("schedules", NAME)] * 2


@pytest.mark.parametrize("mode", ["pause", "resume"])
def test_a_lost_mark_is_put_right(driver, planned, mode):
    driver.run(plain("HDEL", planned.schedule_marks, NAME))
    before = driver.server_ms()
    assert driver.run(plan(planned, NAME, mode)) == "done"
    assert between(driver, planned, before)
    assert mark_of(driver, planned, NAME)[-1] == {"pause": "p", "resume": "-"}[mode]


def test_removed_it_leaves_nothing_and_begins_anew(driver, planned):
    assert driver.run(plan(planned, NAME, "remove")) == "done"
    assert driver.run(plain("EXISTS", planned.schedules, planned.schedule_marks)) == 0
    assert signals(driver, planned) == [("schedules", NAME)]
    before = driver.server_ms()
    assert driver.run(plan(planned, NAME, "add", TWO)) == "done"
    assert between(driver, planned, before)


@pytest.mark.parametrize("mode", ["pause", "resume", "remove"])
def test_where_there_is_none_nothing_is_made(driver, keys, mode):
    assert driver.run(plan(keys, NAME, mode)) == "none"
    assert dump(driver, keys.namespace) == {}


def test_others_are_left_alone(driver, planned):
    driver.run(plan(planned, "other", "add", TWO))
    other = mark_of(driver, planned, "other")
    for mode in ("pause", "resume", "replace", "remove"):
        driver.run(plan(planned, NAME, mode, TWO))
    assert (mark_of(driver, planned, "other"), driver.run(plain("HLEN", planned.schedules))) == (other, 1)


def test_a_full_redis_refuses_whole_and_still_removes(own, own_keys):
    with full(own), pytest.raises(StoreFull):
        own.run(plan(own_keys, NAME, "add", ONE))
    assert dump(own, "own") == {}
    own.run(plan(own_keys, NAME, "add", ONE))
    with full(own):
        assert own.run(plan(own_keys, NAME, "remove")) == "done"
    assert own.run(plain("EXISTS", own_keys.schedules, own_keys.schedule_marks)) == 0


@pytest.mark.parametrize("mode", ["add", "replace"])
def test_what_stands_in_code_is_not_replaced_by_hand(driver, keys, mode):
    call = Streamwork("shop").call("tests.echo", 1)
    declared = schedule_of(NAME, call, every(60_000), "last", "queue", is_declared=True)
    driver.run(plan(keys, NAME, "declare", encode_schedule(declared)))
    before = dump(driver, keys.namespace)
    assert driver.run(plan(keys, NAME, mode, TWO)) == "declared"
    assert dump(driver, keys.namespace) == before
    other = encode_schedule(schedule_of(NAME, call, every(30_000), "last", "queue", is_declared=True))
    assert driver.run(plan(keys, NAME, "declare", other)) == "done"
    assert driver.run(plan(keys, NAME, "remove")) == "done"
    assert driver.run(plan(keys, NAME, mode, TWO)) == "done"
