"""release.lua: give back in place, uncounted, and only one's own (rules 3, 15, P8)."""

from __future__ import annotations

import pytest

from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.helpers import state_of
from tests.redis.kit import LANE, bell, deliver, dump, full, hand_over, owners, settle, signals


def release(driver, keys, *held, consumer="w1"):
    return driver.run(scripts.release(keys, LANE, consumer, [(d.entry, d.count) for d in held]))


def test_what_is_given_back_goes_first_to_the_next_and_is_not_counted(driver, keys):
    held = deliver(driver, keys, "w1", 4)
    driver.run(plain("DEL", keys.bell(LANE)))
    assert release(driver, keys, held[1], held[3]) == 2
    assert owners(driver, keys) == {
        held[0].entry: ("w1", 1),
        held[1].entry: ("returned", 1),
        held[2].entry: ("w1", 1),
        held[3].entry: ("returned", 1),
    }
    assert state_of(driver, keys).returned == {LANE}
    assert (signals(driver, keys)[-1], bell(driver, keys)) == (("returned", LANE), 1)
    adopted = driver.run(scripts.adopt(keys, LANE, "w2", 10))
    assert [(row.entry, row.fields) for row in adopted] == [(d.entry, [b"d", d.body]) for d in (held[1], held[3])]
    assert [row.suspicion for row in adopted] == [None, None]


def test_what_another_one_runs_is_not_given_back(driver, keys, namespace):
    (old,) = deliver(driver, keys, "w1")
    new = hand_over(driver, keys, old, "w2")
    before = dump(driver, namespace)
    assert release(driver, keys, old) == 0
    assert dump(driver, namespace) == before
    assert release(driver, keys, new, consumer="w2") == 1


def test_an_old_delivery_of_ones_own_is_not_given_back(driver, keys):
    (old,) = deliver(driver, keys, "w1")
    new = hand_over(driver, keys, old, "w1")
    assert release(driver, keys, old) == 0
    assert release(driver, keys, new) == 1


def test_what_is_settled_is_not_given_back(driver, keys):
    done, held = deliver(driver, keys, "w1", 2)
    assert settle(driver, keys, done)
    assert release(driver, keys, done, held) == 1
    assert list(owners(driver, keys)) == [held.entry]


def test_after_flushall_nothing_is_left_to_give_back(own, own_keys):
    held = deliver(own, own_keys, "w1", 2)
    own.run(plain("FLUSHALL"))
    assert release(own, own_keys, *held) == 0
    assert dump(own, "own") == {}


def test_it_works_when_redis_is_full(own, own_keys):
    held = deliver(own, own_keys, "w1", 2)
    with full(own):
        assert release(own, own_keys, *held) == 2
    assert state_of(own, own_keys).returned == {LANE}


@pytest.mark.parametrize("broken", ["returned", "control", "bell"])
def test_whatever_stands_under_the_keys_that_tell_of_it_they_are_given_back(own, own_keys, broken):
    held = deliver(own, own_keys, "w1", 2)
    key = own_keys.bell(LANE) if broken == "bell" else getattr(own_keys, broken)
    own.run(plain("DEL", key))
    own.run(plain("SET", key, "foreign"))
    assert release(own, own_keys, *held) == 2
    assert {owner for owner, _ in owners(own, own_keys).values()} == {"returned"}
