"""adopt.lua: marked entries only, each by one, however long live owners run (rules 16-18, 33)."""

from __future__ import annotations

import threading

import pytest

from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.failures import NoGroup
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from tests.helpers import state_of
from tests.redis.kit import LANE, deliver, full, owners, settle


def adopt(driver, keys, consumer="w2", most=100, own=()):
    return driver.run(scripts.adopt(keys, LANE, consumer, most, own))


def leave(driver, keys, consumer="w1"):
    return driver.run(scripts.take(keys, LANE, consumer, mode="leave"))


def test_only_what_is_marked_is_taken_not_what_is_old(driver, keys):
    mine = deliver(driver, keys, "w1", 3)
    old = deliver(driver, keys, "w9", 3)
    # Idle for a day, as after a long task or a long downtime.
    driver.run(
        plain("XCLAIM", keys.lane(LANE), "workers", "w9", 0, *[d.entry for d in old], "IDLE", 86_400_000, "JUSTID")
    )
    leave(driver, keys)
    assert [row.entry for row in adopt(driver, keys)] == [d.entry for d in mine]
    assert {owners(driver, keys)[d.entry] for d in old} == {("w9", 1)}
    assert adopt(driver, keys) == []


def test_free_slots_bound_it_and_the_rest_stays_marked(driver, keys):
    held = deliver(driver, keys, "w1", 10)
    leave(driver, keys)
    assert [len(adopt(driver, keys, most=4)) for _ in range(2)] == [4, 4]
    assert state_of(driver, keys).returned == {LANE}
    assert [row.entry for row in adopt(driver, keys, most=4)] == [d.entry for d in held[8:]]
    assert state_of(driver, keys).returned == set()


def test_a_lane_that_is_exactly_emptied_is_unmarked_by_the_next_look(driver, keys):
    deliver(driver, keys, "w1", 4)
    leave(driver, keys)
    assert len(adopt(driver, keys, most=4)) == 4
    assert adopt(driver, keys, most=4) == []
    assert state_of(driver, keys).returned == set()


def test_body_count_and_suspicion_come_along(driver, keys):
    first, second = deliver(driver, keys, "w1", 2)
    driver.run(scripts.take(keys, LANE, "w1", mode="dead", evidence="SIGSEGV", started=[first.entry]))
    rows = adopt(driver, keys)
    assert rows == [
        (first.entry, [b"d", first.body], 2, b"1,0,SIGSEGV"),
        (second.entry, [b"d", second.body], 2, None),
    ]
    assert owners(driver, keys)[first.entry] == ("w2", 2)


def test_many_adopters_at_once_take_each_entry_once(redis_url, driver, keys):
    held = deliver(driver, keys, "w1", 400)
    for _ in range(4):
        leave(driver, keys)
    taken = []

    def run(name):
        mine = SyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        while rows := adopt(mine, keys, name, most=9):
            taken.extend(row.entry for row in rows)
        mine.close()

    threads = [threading.Thread(target=run, args=(f"w{n}",)) for n in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(d.entry for d in held)


def test_an_audit_brings_back_only_ones_own(driver, keys):
    lost, other = deliver(driver, keys, "w1", 2)
    (stranger,) = deliver(driver, keys, "w2")
    rows = adopt(driver, keys, "w1", own=[(lost.entry, 1), (stranger.entry, 1)])
    assert [(row.entry, row.delivered) for row in rows] == [(lost.entry, 2)]
    assert owners(driver, keys) == {lost.entry: ("w1", 2), other.entry: ("w1", 1), stranger.entry: ("w2", 1)}


def test_what_two_audits_found_at_once_runs_once(driver, keys):
    (lost,) = deliver(driver, keys, "w1")
    assert len(adopt(driver, keys, "w1", own=[(lost.entry, 1)])) == 1
    assert adopt(driver, keys, "w1", own=[(lost.entry, 1)]) == []
    assert owners(driver, keys) == {lost.entry: ("w1", 2)}


def test_after_an_audit_the_earlier_delivery_cannot_reschedule(driver, keys):
    (lost,) = deliver(driver, keys, "w1")
    (row,) = adopt(driver, keys, "w1", own=[(lost.entry, 1)])
    assert not settle(driver, keys, lost, "R")
    assert settle(driver, keys, lost._replace(count=row.delivered), "R")


def test_an_entry_that_is_gone_from_the_stream_is_told_counted_and_not_pending_for_ever(driver, keys):
    gone, kept = deliver(driver, keys, "w1", 2)
    leave(driver, keys)
    driver.run(plain("HSET", keys.suspects, f"{LANE}/{gone.entry.decode()}", "1,0,x"))
    driver.run(plain("XDEL", keys.lane(LANE), gone.entry))
    rows = adopt(driver, keys)
    assert [(row.entry, row.fields) for row in rows] == [(gone.entry, None), (kept.entry, [b"d", kept.body])]
    assert rows[0].suspicion == b"1,0,x"
    assert owners(driver, keys) == {kept.entry: ("w2", 2)}
    state = state_of(driver, keys)
    assert (state.undelivered, state.in_flight, state.settled, state.suspects) == (0, 1, {LANE: 1}, {})


def test_a_lane_without_a_group_has_nothing_and_is_unmarked(driver, keys):
    driver.run(plain("SADD", keys.returned, LANE))
    assert adopt(driver, keys) == []
    assert state_of(driver, keys).returned == set()


def test_an_audit_of_a_lane_without_a_group_says_so(driver, keys):
    with pytest.raises(NoGroup):
        adopt(driver, keys, "w1", own=[(b"1-1", 1)])


def test_it_works_when_redis_is_full(own, own_keys):
    deliver(own, own_keys, "w1", 2)
    leave(own, own_keys)
    with full(own):
        assert len(adopt(own, own_keys)) == 2


@pytest.mark.parametrize("broken", ["returned", "suspects", "settled"])
def test_whatever_stands_under_the_other_keys_no_entry_is_taken_without_being_told(own, own_keys, broken):
    held = deliver(own, own_keys, "w1", 3)
    leave(own, own_keys)
    own.run(plain("XDEL", own_keys.lane(LANE), held[0].entry))
    own.run(plain("DEL", getattr(own_keys, broken)))
    own.run(plain("SET", getattr(own_keys, broken), "foreign"))
    rows = adopt(own, own_keys)
    assert [row.entry for row in rows if row.fields] == [d.entry for d in held[1:]]
    assert {row.suspicion for row in rows} == {None}
