"""revive.lua: a lapsed consumer lives on, unless it was declared dead (rules 3, 11)."""

from __future__ import annotations

from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.redis.kit import dump, full, take


def test_a_living_one_is_ok(driver, keys):
    driver.run(scripts.register(keys, "w1", b"", 1000))
    assert driver.run(scripts.revive(keys, "w1", 60_000)) == "ok"
    assert driver.run(plain("PTTL", keys.alive("w1"))) > 50_000


def test_one_whose_key_lapsed_and_whom_nobody_took_is_revived(driver, keys):
    driver.run(scripts.register(keys, "w1", b"", 1000))
    driver.run(plain("DEL", keys.alive("w1")))
    assert driver.run(scripts.revive(keys, "w1", 5000)) == "revived"
    assert 0 < driver.run(plain("PTTL", keys.alive("w1"))) <= 5000


def test_one_who_was_taken_is_fenced_and_stays_dead(driver, keys, namespace):
    driver.run(scripts.register(keys, "w1", b"", 1000))
    driver.run(plain("DEL", keys.alive("w1")))
    assert take(driver, keys) == 0
    before = dump(driver, namespace)
    assert driver.run(scripts.revive(keys, "w1", 5000)) == "fenced"
    assert dump(driver, namespace) == before


def test_after_flushall_everyone_is_fenced(own, own_keys):
    own.run(scripts.register(own_keys, "w1", b"", 1000))
    own.run(plain("FLUSHALL"))
    assert own.run(scripts.revive(own_keys, "w1", 5000)) == "fenced"


def test_it_works_when_redis_is_full(own, own_keys):
    own.run(scripts.register(own_keys, "w1", b"", 1000))
    own.run(plain("DEL", own_keys.alive("w1")))
    with full(own):
        assert own.run(scripts.revive(own_keys, "w1", 5000)) == "revived"
