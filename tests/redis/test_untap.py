"""untap.lua: a tap goes with all that is known of it, and one that is used stays where only dead ones are meant."""

from __future__ import annotations

from streamwork.store.commands import plain
from streamwork.store.tapping import tap, untap
from tests.redis.kit import LANE, full, put

HIGH = "3:"
LANES = [LANE, HIGH]


def begin(driver, keys, *names):
    for lane in LANES:
        put(driver, keys, 1, lane)
    for name in names:
        driver.run(tap(keys, name, dict.fromkeys(LANES, b""), "$", 7))


def groups(driver, keys):
    found = [group for lane in LANES for group in driver.run(plain("XINFO", "GROUPS", keys.lane(lane)))]
    return sorted(dict(zip(group[::2], group[1::2], strict=True))[b"name"].decode() for group in found)


def known(driver, keys):
    return sorted(name.decode() for name in driver.run(plain("HKEYS", keys.taps)))


def test_one_goes_and_its_neighbour_stays(driver, keys):
    begin(driver, keys, "t", "t2")
    assert driver.run(untap(keys, "t", LANES, only_dead=False)) is True
    assert groups(driver, keys) == ["tap:t2", "tap:t2", "workers", "workers"]
    assert known(driver, keys) == ["t2", f"t2 {LANE}", f"t2 {HIGH}"]
    assert driver.run(plain("EXISTS", keys.tap("t"), keys.tap("t2"))) == 1
    assert driver.run(untap(keys, "t", LANES, only_dead=False)) is False


def test_one_that_is_used_stays_where_only_the_dead_are_meant(driver, keys):
    begin(driver, keys, "t")
    assert driver.run(untap(keys, "t", LANES, only_dead=True)) is False
    assert groups(driver, keys) == ["tap:t", "tap:t", "workers", "workers"]
    driver.run(plain("DEL", keys.tap("t")))
    assert driver.run(untap(keys, "t", LANES, only_dead=True)) is True
    assert (groups(driver, keys), known(driver, keys)) == (["workers", "workers"], [])


def test_a_full_redis_lets_it_go(own, own_keys):
    begin(own, own_keys, "t")
    with full(own):
        assert own.run(untap(own_keys, "t", LANES, only_dead=False)) is True
    assert groups(own, own_keys) == ["workers", "workers"]
