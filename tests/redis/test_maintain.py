"""maintain.lua: history goes, work never does; the mark never falls; counters are exact (rules 8, 30, 33)."""

from __future__ import annotations

import asyncio
import random

import pytest

from streamwork.config import load
from streamwork.store import healing, scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.member import QueueFacts
from streamwork.worker.upkeep import Maintainer
from tests.helpers import state_of
from tests.redis.kit import LANE, deliver, hand_over, journal, owners, put, read, settle, signals

ALL = "99999999999999"


@pytest.fixture
def exact_trim(driver):
    """Nodes of one entry, so that `~` removes as much as it may: what an approximate trim spares hides a wrong cut."""
    before = driver.run(plain("CONFIG", "GET", "stream-node-max-entries"))[1]
    driver.run(plain("CONFIG", "SET", "stream-node-max-entries", 1))
    yield
    driver.run(plain("CONFIG", "SET", "stream-node-max-entries", before))


def maintain(driver, keys, oldest="0", most=10_000):
    return driver.run(healing.maintain(keys, LANE, oldest, most, 7))


def entries(driver, keys):
    return [entry.encode() for entry, _ in state_of(driver, keys).lanes[LANE]]


def low(driver, keys):
    return driver.run(plain("HGET", keys.low, LANE))


@pytest.mark.usefixtures("exact_trim")
def test_settled_history_goes_up_to_the_last_delivered(driver, keys):
    held = deliver(driver, keys, "w1", 10)
    for delivery in held:
        assert settle(driver, keys, delivery)
    trimmed, mark, _ = maintain(driver, keys, ALL)
    assert trimmed == 9
    assert mark == low(driver, keys) == held[-1].entry
    assert entries(driver, keys) == [held[-1].entry]


@pytest.mark.usefixtures("exact_trim")
def test_nothing_behind_the_oldest_pending_goes(driver, keys):
    held = deliver(driver, keys, "w1", 10)
    for delivery in (*held[:4], *held[5:]):
        assert settle(driver, keys, delivery)
    maintain(driver, keys, ALL)
    # The mark stands on the id before, and MINID keeps what it names: an entry, where both are of one millisecond.
    assert entries(driver, keys) in ([d.entry for d in held[3:]], [d.entry for d in held[4:]])
    assert settle(driver, keys, held[4])


@pytest.mark.usefixtures("exact_trim")
def test_nothing_undelivered_goes(driver, keys):
    waiting = put(driver, keys, 10)
    maintain(driver, keys, ALL)
    assert [d.task_id for d in read(driver, keys, "w1")] == [m.task_id for m in waiting]


@pytest.mark.usefixtures("exact_trim")
def test_what_is_marked_for_adoption_is_pending_too(driver, keys):
    (old, *rest) = deliver(driver, keys, "w1", 5)
    for delivery in rest:
        assert settle(driver, keys, delivery)
    driver.run(scripts.take(keys, LANE, "w1", mode="leave"))
    maintain(driver, keys, ALL)
    (row,) = driver.run(scripts.adopt(keys, LANE, "w2", 1))
    assert (row.entry, row.fields) == (old.entry, [b"d", old.body])


@pytest.mark.usefixtures("exact_trim")
def test_retention_keeps_what_is_young(driver, keys):
    held = deliver(driver, keys, "w1", 3)
    for delivery in held:
        assert settle(driver, keys, delivery)
    oldest = held[0].entry.partition(b"-")[0].decode()
    assert maintain(driver, keys, oldest)[0] == 0
    assert maintain(driver, keys, "0")[0] == 0
    assert len(entries(driver, keys)) == 3


@pytest.mark.usefixtures("exact_trim")
def test_one_call_trims_no_more_than_told(driver, keys):
    for delivery in deliver(driver, keys, "w1", 30):
        assert settle(driver, keys, delivery)
    assert [maintain(driver, keys, ALL, 10)[0] for _ in range(4)] == [10, 10, 9, 0]


@pytest.mark.usefixtures("exact_trim")
def test_random_histories_never_lose_work(driver, keys):
    draw = random.Random(5)
    alive, seen = {}, set()
    for _ in range(120):
        step = draw.random()
        if step < 0.35:
            put(driver, keys, draw.randint(1, 4))
        elif step < 0.6:
            for delivery in read(driver, keys, f"w{draw.randint(1, 3)}", draw.randint(1, 5)):
                assert delivery.entry not in seen
                seen.add(delivery.entry)
                alive[delivery.entry] = delivery
        elif step < 0.85 and alive:
            delivery = alive.pop(draw.choice(sorted(alive)))
            assert settle(driver, keys, delivery, draw.choice("SKD"))
        elif alive:
            entry = draw.choice(sorted(alive))
            owner = alive[entry].consumer
            if sum(d.consumer == owner for d in alive.values()) == 1:
                alive[entry] = hand_over(driver, keys, alive[entry], "w3" if owner != "w3" else "w1")
        before = low(driver, keys) or b"0-0"
        maintain(driver, keys, ALL)
        assert parts(low(driver, keys) or b"0-0") >= parts(before)
        if driver.run(plain("EXISTS", keys.lane(LANE))):
            state = state_of(driver, keys)
            assert alive.keys() <= {entry.encode() for entry, _ in state.lanes[LANE]}
            assert state.in_flight == len(alive)
            assert state.undelivered == state.added[LANE] - len(seen)
    assert len(seen) > 50


def parts(entry):
    ms, _, seq = entry.partition(b"-")
    return int(ms), int(seq or 0)


def test_the_mark_is_just_below_the_oldest_pending(driver, keys):
    driver.run(plain("XGROUP", "CREATE", keys.lane(LANE), "workers", "0", "MKSTREAM"))
    for entry in ("7-0", "7-5", "8-0"):
        driver.run(plain("XADD", keys.lane(LANE), entry, "d", put(driver, keys, lane="0:")[0].body))
    read(driver, keys, "w1")
    assert maintain(driver, keys) == (0, b"6-18446744073709551615", b"7-0")
    driver.run(plain("XACK", keys.lane(LANE), "workers", "7-0"))
    assert maintain(driver, keys) == (0, b"7-4", b"7-5")
    driver.run(plain("XACK", keys.lane(LANE), "workers", "7-5", "8-0"))
    assert maintain(driver, keys) == (0, b"8-0", b"")


@pytest.mark.usefixtures("exact_trim")
def test_the_mark_never_falls_and_a_group_behind_it_loses_nothing(driver, keys):
    held = deliver(driver, keys, "w1", 5)
    for delivery in held:
        assert settle(driver, keys, delivery)
    maintain(driver, keys)
    assert low(driver, keys) == held[-1].entry
    driver.run(plain("XGROUP", "SETID", keys.lane(LANE), "workers", "0"))
    again = read(driver, keys, "w2", 3)
    assert maintain(driver, keys, ALL) == (0, held[-1].entry, b"")
    assert [row.entry for row in again] == entries(driver, keys)[:3]


@pytest.mark.usefixtures("exact_trim")
def test_a_lane_without_the_group_is_not_trimmed(driver, keys):
    put(driver, keys, 5)
    driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "workers"))
    driver.run(plain("XGROUP", "CREATE", keys.lane(LANE), "tap", "$"))
    assert maintain(driver, keys, ALL)[:2] == (0, b"")
    assert driver.run(plain("XLEN", keys.lane(LANE))) == 5


def test_a_lane_that_does_not_exist_is_no_error(driver, keys):
    assert maintain(driver, keys, ALL) == (0, b"", b"")
    assert driver.run(plain("EXISTS", keys.lanes)) == 0


@pytest.mark.usefixtures("exact_trim")
def test_another_group_does_not_hold_the_trim_back(driver, keys):
    held = deliver(driver, keys, "w1", 4)
    driver.run(plain("XGROUP", "CREATE", keys.lane(LANE), "tap", "0"))
    for delivery in held:
        assert settle(driver, keys, delivery)
    assert maintain(driver, keys, ALL)[0] == 3


def test_counters_that_drifted_are_put_right_once_all_is_delivered(driver, keys):
    held = deliver(driver, keys, "w1", 5)
    assert settle(driver, keys, held[0])
    driver.run(plain("HSET", keys.settled, LANE, 77))
    put(driver, keys, 2)
    maintain(driver, keys)
    assert state_of(driver, keys).settled == {LANE: 77}  # with something undelivered nobody can tell
    read(driver, keys, "w1")
    maintain(driver, keys)
    state = state_of(driver, keys)
    assert (state.settled, state.undelivered, state.in_flight) == ({LANE: 1}, 0, 6)


def test_garbage_that_someone_added_by_hand_does_not_spoil_the_backlog_for_good(driver, keys):
    put(driver, keys)
    driver.run(plain("XADD", keys.lane(LANE), "*", "junk", "x"))
    rows = driver.run(scripts.read_new([(keys.lane(LANE),)], "w1", 10, None))[0][1]
    driver.run(plain("XACK", keys.lane(LANE), "workers", rows[1][0]))
    driver.run(plain("HINCRBY", keys.settled, LANE, 1))
    assert state_of(driver, keys).undelivered == -1
    maintain(driver, keys)
    assert (state_of(driver, keys).undelivered, len(owners(driver, keys))) == (0, 1)


def test_a_lane_that_lost_its_place_in_the_list_is_put_back_and_announced(driver, keys):
    put(driver, keys)
    driver.run(plain("DEL", keys.lanes, keys.control))
    maintain(driver, keys)
    assert driver.run(plain("HGETALL", keys.lanes)) == [LANE.encode(), b"7"]
    assert signals(driver, keys) == [("lane", LANE)]
    maintain(driver, keys)
    assert len(signals(driver, keys)) == 1


def tick(url, keys, lanes, history_s=3600):
    """Let a maintainer on duty tick once."""
    config = load({"keep.history_s": history_s}, environ={}).config

    async def main():
        driver = AsyncDriver(Endpoint(url), ALL_SCRIPTS)
        queue = QueueFacts(keys)
        queue.lanes, queue.on_duty = lanes, True
        await Maintainer(driver, config, queue).tick()
        await driver.close()

    asyncio.run(main())


def test_the_maintainer_finds_lanes_that_only_the_counters_know(redis_url, driver, keys):
    put(driver, keys)
    driver.run(plain("DEL", keys.lanes))
    driver.run(plain("HSET", keys.added, "foo", 1, b"\xff", 1, "3:", 1))
    tick(redis_url, keys, [])
    driver.run(plain("HDEL", keys.added, b"\xff"))
    assert driver.run(plain("HKEYS", keys.lanes)) == [LANE.encode()]


def test_the_journal_is_kept_from_the_first_entry_that_a_lost_group_would_be_restored_from(redis_url, driver, keys):
    def record(at):
        driver.run(plain("XADD", keys.journal, at, "j", journal(delivery, "S")))

    driver.run(plain("CONFIG", "SET", "stream-node-max-entries", 1))
    driver.run(plain("XGROUP", "CREATE", keys.lane(LANE), "workers", "0", "MKSTREAM"))
    driver.run(plain("XADD", keys.lane(LANE), "1000000-0", "d", put(driver, keys, lane="0:")[0].body))
    (delivery,) = read(driver, keys, "w1")
    for at in ("5-0", "989999-0", "990000-0", "1000001-0"):
        record(at)
    tick(redis_url, keys, [LANE])
    assert [row[0] for row in driver.run(plain("XRANGE", keys.journal, "-", "+"))] == [b"990000-0", b"1000001-0"]
    assert settle(driver, keys, delivery)
    tick(redis_url, keys, [LANE])
    driver.run(plain("CONFIG", "SET", "stream-node-max-entries", 100))
    assert driver.run(plain("XLEN", keys.journal)) == 1  # nothing is open: only retention counts
