"""take.lua: a dead consumer's entries are marked in place, the living lose none (rules 3, 14, 15, 17)."""

from __future__ import annotations

import pytest

from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.helpers import state_of
from tests.redis.kit import LANE, bell, deliver, dump, full, owners, read, signals, take


def test_the_entries_of_a_dead_one_are_marked_announced_and_rung_for(driver, keys):
    held = deliver(driver, keys, "w1", 3)
    others = deliver(driver, keys, "w2", 2)
    driver.run(plain("HSET", keys.consumers, "w1", "", "w2", ""))
    driver.run(plain("DEL", keys.bell(LANE)))
    assert take(driver, keys) == 3
    assert owners(driver, keys) == {
        **{d.entry: ("returned", 1) for d in held},
        **{d.entry: ("w2", 1) for d in others},
    }
    state = state_of(driver, keys)
    assert (state.returned, state.consumers) == ({LANE}, {"w2"})
    assert signals(driver, keys)[-1] == ("returned", LANE)
    assert bell(driver, keys) == 1


def test_order_place_and_count_are_kept(driver, keys):
    held = deliver(driver, keys, "w1", 20)
    take(driver, keys)
    adopted = driver.run(scripts.adopt(keys, LANE, "w2", 100))
    assert [row.entry for row in adopted] == [d.entry for d in held]
    assert {row.delivered for row in adopted} == {2}


def test_the_living_is_not_taken(driver, keys, namespace):
    driver.run(scripts.register(keys, "w1", b"", 60_000))
    deliver(driver, keys, "w1")
    driver.run(plain("SET", keys.pulse, "reaper", "PX", 60_000))
    before = dump(driver, namespace)
    assert take(driver, keys) == -2
    assert dump(driver, namespace) == before


def test_nobody_is_taken_in_grace(driver, keys, namespace):
    deliver(driver, keys, "w1")
    driver.run(plain("SET", keys.grace, "1", "PX", 60_000))
    driver.run(plain("SET", keys.pulse, "reaper", "PX", 60_000))
    before = dump(driver, namespace)
    assert take(driver, keys) == -1
    assert dump(driver, namespace) == before


def test_nobody_is_taken_where_the_pulse_has_lapsed_since_the_reapers_look(driver, keys, namespace):
    deliver(driver, keys, "w1")
    driver.run(scripts.pulse(keys, "reaper", 60_000, 60_000, 1000))
    driver.run(plain("DEL", keys.grace))  # it is over, and all goes on
    driver.run(plain("DEL", keys.pulse, keys.alive("w1")))  # the clock is set forward, in the middle of a look
    before = dump(driver, namespace)
    assert driver.run(scripts.take(keys, LANE, "w1", mode="reap")) == -1
    assert dump(driver, namespace) == before


@pytest.mark.parametrize("mode", ["dead", "leave"])
def test_its_own_supervisor_needs_no_grace_and_no_lapse(driver, keys, mode):
    driver.run(scripts.register(keys, "w1", b"", 60_000))
    deliver(driver, keys, "w1")
    driver.run(plain("SET", keys.grace, "1", "PX", 60_000))
    assert take(driver, keys, mode=mode) == 1
    assert driver.run(plain("EXISTS", keys.alive("w1"))) == 0
    assert driver.run(scripts.revive(keys, "w1", 5000)) == "fenced"


def test_in_batches_until_the_last(driver, keys):
    deliver(driver, keys, "w1", 25)
    assert [take(driver, keys, most=10) for _ in range(4)] == [10, 10, 5, 0]
    assert {owner for owner, _ in owners(driver, keys).values()} == {"returned"}


def test_only_what_it_had_started_is_blamed_for_its_death(driver, keys):
    first, second, third = deliver(driver, keys, "w1", 3)
    assert take(driver, keys, mode="dead", evidence="signal 9, x", started=[second.entry]) == 3
    assert state_of(driver, keys).suspects == {f"{LANE}/{second.entry.decode()}": "1,0,signal 9, x"}
    assert {first.entry, third.entry} < owners(driver, keys).keys()


def test_who_vanished_with_its_host_counts_as_lost_not_as_crash(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    take(driver, keys, evidence="vanished")
    assert state_of(driver, keys).suspects == {f"{LANE}/{delivery.entry.decode()}": "0,1,vanished"}


def test_leaving_in_order_blames_nobody(driver, keys):
    deliver(driver, keys, "w1", 2)
    take(driver, keys, mode="leave")
    assert state_of(driver, keys).suspects == {}


def test_crashes_and_losses_add_up_over_owners(driver, keys):
    (delivery,) = deliver(driver, keys, "w0")
    take(driver, keys, "w0", mode="dead", evidence="one", started=[delivery.entry])
    for n, (mode, started) in enumerate((("dead", [delivery.entry]), ("reap", []), ("dead", [delivery.entry])), 1):
        (adopted,) = driver.run(scripts.adopt(keys, LANE, f"w{n}", 1))
        assert adopted.entry == delivery.entry
        take(driver, keys, f"w{n}", mode=mode, evidence=f"evidence {n}", started=started)
    assert list(state_of(driver, keys).suspects.values()) == ["3,1,evidence 3"]


def test_a_lane_without_a_group_has_nothing_to_take(driver, keys):
    assert take(driver, keys) == 0
    assert state_of(driver, keys).returned == set()


def test_an_entry_that_is_gone_from_the_stream_leaves_no_suspicion_behind(driver, keys):
    gone, kept = deliver(driver, keys, "w1", 2)
    driver.run(plain("XDEL", keys.lane(LANE), gone.entry))
    assert take(driver, keys) == 2
    adopted = driver.run(scripts.adopt(keys, LANE, "w2", 10))
    assert [row.entry for row in adopted if row.fields] == [kept.entry]
    assert state_of(driver, keys).suspects == {f"{LANE}/{kept.entry.decode()}": "0,1,"}


def test_a_live_owner_that_reads_on_keeps_the_new_ones(driver, keys):
    deliver(driver, keys, "w1", 2)
    take(driver, keys, mode="leave")
    (late,) = deliver(driver, keys, "w1")
    assert owners(driver, keys)[late.entry] == ("w1", 1)
    assert read(driver, keys, "w2") == []


def test_it_works_when_redis_is_full(own, own_keys):
    (delivery,) = deliver(own, own_keys, "w1")
    own.run(plain("SET", own_keys.pulse, "reaper", "PX", 60_000))
    with full(own):
        assert take(own, own_keys) == 1
        (adopted,) = own.run(scripts.adopt(own_keys, LANE, "w2", 1))
    assert (adopted.entry, adopted.suspicion) == (delivery.entry, b"0,1,")


@pytest.mark.parametrize("mode", ["reap", "dead"])
@pytest.mark.parametrize("garbage", ["rubbish", "", "1", ",", "-1,2,x", "99999999999999999999,1,x"])
def test_a_suspicion_that_is_not_ours_leaves_no_entry_with_the_dead(driver, keys, mode, garbage):
    held = deliver(driver, keys, "w1", 3)
    place = f"{LANE}/{held[1].entry.decode()}"
    driver.run(plain("HSET", keys.suspects, place, garbage))
    assert take(driver, keys, mode=mode, evidence="x", started=[d.entry for d in held]) == 3
    assert {owner for owner, _ in owners(driver, keys).values()} == {"returned"}
    assert state_of(driver, keys).suspects[place] == ("1,0,x" if mode == "dead" else "0,1,x")


@pytest.mark.parametrize("broken", ["returned", "control", "suspects", "consumers", "bell"])
def test_whatever_stands_under_the_other_keys_the_entries_of_the_dead_are_marked(own, own_keys, broken):
    deliver(own, own_keys, "w1", 3)
    key = own_keys.bell(LANE) if broken == "bell" else getattr(own_keys, broken)
    own.run(plain("DEL", key))
    own.run(plain("SET", key, "foreign"))
    assert take(own, own_keys) == 3
    assert {owner for owner, _ in owners(own, own_keys).values()} == {"returned"}
    rows = own.run(scripts.adopt(own_keys, LANE, "w2", 10))
    assert len(rows) == 3
