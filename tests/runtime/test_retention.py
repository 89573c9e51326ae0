"""How long a queue's history is kept: by age and by count, per queue, in steps, never past what is unsettled."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.broker.history import Query, Reading
from streamwork.broker.steps import ask
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import load
from streamwork.model.history import HistoryGap
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.member import QueueFacts
from streamwork.worker.upkeep import Maintainer, after
from tests.helpers import state_of
from tests.leaks import leaked
from tests.redis.burial import bury
from tests.redis.kit import LANE, deliver, end, read, settle

HIGH = "3:"


@pytest.fixture
def keys(namespace):
    return QueueKeys(namespace, "default")


@pytest.fixture
def keeper(redis_url, keys):
    """Return what lets a maintainer on duty tick, with settings of `keep`: tick(history_most=10) gives its pauses."""

    def keeper(times=1, lanes=(LANE, HIGH), **settings):
        config = load({f"keep.{name}": value for name, value in settings.items()}, environ={}).config

        async def main():
            driver = AsyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
            queue = QueueFacts(keys)
            queue.lanes, queue.on_duty = list(lanes), True
            maintainer = Maintainer(driver, config, queue)
            pauses = [await maintainer.tick() for _ in range(times)]
            await driver.close()
            return pauses

        return asyncio.run(main())

    return keeper


def run(driver, keys, count, lane=LANE):
    """Let so many messages succeed; returns their deliveries."""
    held = deliver(driver, keys, "w1", count, lane)
    for start in range(0, count, 500):
        ends = [end(keys, delivery) for delivery in held[start : start + 500]]
        assert driver.run(scripts.settle(keys, "w1", ends)) == []
    return held


def lengths(driver, keys, *lanes):
    return [driver.run(plain("XLEN", key)) for key in (keys.journal, *(keys.lane(lane) for lane in lanes or (LANE,)))]


def history(driver, keys, **asked):
    reading, found = Reading(keys, Query(**asked)), []
    while not reading.is_over:
        found += ask(driver, reading.page())
    return found


def test_by_count_the_newest_records_stay_with_their_entries(driver, keys, keeper):
    held = run(driver, keys, 1_000)
    keeper(2, history_most=300)
    records, entries = lengths(driver, keys)
    assert records == 300
    assert 300 <= entries < 400  # whole nodes of 100 go
    gap, *found = history(driver, keys, since_ms=1)
    assert isinstance(gap, HistoryGap)
    assert (gap.what, gap.why) == ("attempts", "keep.history_most = 300")
    assert [record.id for record in found] == [delivery.task_id for delivery in held[700:]]
    assert all(record.args is not None for record in found)
    assert b"keep.history_most = 300" in driver.run(plain("HGET", keys.trimmed, LANE))


def test_a_lane_keeps_what_its_own_records_speak_of(driver, keys, keeper):
    run(driver, keys, 200, HIGH)
    run(driver, keys, 800)
    last = run(driver, keys, 10, HIGH)
    keeper(2, history_most=500)
    records, low, high = lengths(driver, keys, LANE, HIGH)
    assert (records, 490 <= low < 590) == (500, True)
    assert 10 <= high < 110
    assert all(record.args is not None for record in history(driver, keys))
    assert [record.id for record in history(driver, keys)[-10:]] == [delivery.task_id for delivery in last]


def test_by_count_nothing_goes_that_a_lost_group_is_restored_from(driver, keys, keeper):
    (held,) = deliver(driver, keys, "w1", 1)
    run(driver, keys, 500)
    keeper(3, history_most=10)
    assert lengths(driver, keys) == [500, 501]
    assert settle(driver, keys, held)
    # What is open now is nothing; the margin for clocks that were set back counts from then on.
    keeper(3, history_most=10)
    assert lengths(driver, keys)[0] == 10


def test_by_count_what_is_undelivered_and_pending_stays(driver, keys, keeper):
    run(driver, keys, 300)
    held = deliver(driver, keys, "w1", 50)
    waiting = deliver(driver, keys, "w2", 50)
    keeper(3, history_most=1)
    for delivery in (*held, *waiting):
        assert settle(driver, keys, delivery)
    assert read(driver, keys, "w3") == []


def test_each_queue_has_bounds_of_its_own(driver, keys, keeper):
    run(driver, keys, 400)
    keeper(2, history_most="default=0,*=5", history_s={"default": 3600, "*": 1e-3})
    assert lengths(driver, keys) == [400, 400]
    keeper(2, history_most="other=5,default=150", history_s=0)
    assert lengths(driver, keys)[0] == 150
    keeper(2, history_s="other=9,default=0.001")
    assert max(lengths(driver, keys)) < 100
    assert b"keep.history_s = 0.001" in driver.run(plain("HGET", keys.trimmed, "journal"))


def test_without_bounds_nothing_goes(driver, keys, keeper):
    run(driver, keys, 300)
    assert keeper(2, history_s=0) == [None, None]
    assert lengths(driver, keys) == [300, 300]
    assert driver.run(plain("EXISTS", keys.trimmed)) == 0


def test_while_there_is_more_to_trim_it_comes_again_at_once(driver, keys, keeper, monkeypatch):
    run(driver, keys, 1_000)
    monkeypatch.setattr(Maintainer, "TRIMMED_AT_ONCE", 300)
    pauses = keeper(8, history_s=0.001)
    assert pauses[:3] == [Maintainer.MORE_S] * 3
    assert pauses[-1] is None
    assert max(lengths(driver, keys)) <= 100
    run(driver, keys, 1_000)
    monkeypatch.setattr(Maintainer, "COUNTED_AT_ONCE", 400)
    monkeypatch.setattr(Maintainer, "PAGE", 100)
    monkeypatch.setattr(Maintainer, "TRIMMED_AT_ONCE", 10_000)
    assert keeper(1, history_most=50, history_s=0) == [Maintainer.MORE_S]
    pauses = keeper(4, history_most=50, history_s=0)
    assert pauses[-1] is None
    assert lengths(driver, keys)[0] == 50


def test_garbage_in_the_journal_is_trimmed_too(driver, keys, keeper):
    for at in range(1, 50):
        driver.run(plain("XADD", keys.journal, f"{at}-0", "j", "garbage"))
    run(driver, keys, 60)
    keeper(2, history_most=60, history_s=0)
    assert lengths(driver, keys) == [60, 60]


def test_the_id_behind_another_one():
    assert after(b"5-7") == b"5-8"
    assert after(b"5") == b"5-1"
    assert after(b"5-18446744073709551615") == b"6-0"
    with pytest.raises(ValueError):
        after(b"x")


def test_history_that_is_young_stays_by_age(driver, keys, keeper):
    run(driver, keys, 300)
    now_ms = SYSTEM_CLOCK.now_ms()
    keeper(1, history_s=60)
    assert lengths(driver, keys) == [300, 300]
    assert (
        now_ms - int(driver.run(plain("XRANGE", keys.journal, "-", "+", "COUNT", 1))[0][0].partition(b"-")[0]) < 60_000
    )


def test_dead_letters_past_their_retention_go_some_at_a_time_and_the_journal_says_why(driver, keys, keeper, namespace):
    ids = {each.task_id for each in bury(driver, keys, 1_400)}
    now_ms = SYSTEM_CLOCK.now_ms()
    young = [task_id for task_id in sorted(ids)[:3] if driver.run(plain("ZADD", keys.dead, now_ms, task_id)) == 0]
    keeper(1, dead_s=0)
    assert driver.run(plain("ZCARD", keys.dead)) == 1_400
    assert keeper(1, dead_s=3600) == [Maintainer.MORE_S]
    assert 3 < driver.run(plain("ZCARD", keys.dead)) < 1_400
    assert keeper(3)[-1] is None
    assert [task_id.decode() for task_id in driver.run(plain("ZRANGE", keys.dead, 0, -1))] == young
    purged = [record for record in state_of(driver, keys).journal if record.state == "purged"]
    assert {record.id for record in purged} == ids - set(young)
    assert {record.consumer for record in purged} == {"keep.dead_s = 3600", "keep.dead_s = 7776000"}
    assert leaked(driver, namespace) == []
