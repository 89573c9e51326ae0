"""drop_consumer.lua: a name goes only when it owns nothing, since its entries would go with it (rule 15)."""

from __future__ import annotations

from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.redis.kit import LANE, deliver, owners, settle


def drop(driver, keys, consumer="w1"):
    return driver.run(scripts.drop_consumer(keys, LANE, consumer))


def names(driver, keys):
    rows = driver.run(plain("XINFO", "CONSUMERS", keys.lane(LANE), "workers"))
    return {row[1].decode() for row in rows}


def test_one_that_owns_nothing_goes(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery)
    assert drop(driver, keys) is True
    assert names(driver, keys) == set()


def test_one_that_owns_something_stays_with_all_of_it(driver, keys):
    done, held = deliver(driver, keys, "w1", 2)
    assert settle(driver, keys, done)
    assert drop(driver, keys) is False
    assert owners(driver, keys) == {held.entry: ("w1", 1)}


def test_one_whose_entries_were_moved_goes_and_they_stay(driver, keys):
    held = deliver(driver, keys, "w1", 3)
    driver.run(scripts.take(keys, LANE, "w1", mode="leave"))
    assert drop(driver, keys) is True
    assert names(driver, keys) == {"returned"}
    assert [row.entry for row in driver.run(scripts.adopt(keys, LANE, "w2", 10))] == [d.entry for d in held]


def test_an_unknown_name_is_no_error_and_neither_is_a_missing_group(driver, keys):
    assert drop(driver, keys) is False
    deliver(driver, keys, "w1")
    assert drop(driver, keys, "nobody") is True
    assert names(driver, keys) == {"w1"}
