"""register.lua, and the plain beat: liveness exists before the first read (rules 3, 11)."""

from __future__ import annotations

from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.helpers import state_of
from tests.redis.kit import full


def test_registration_and_liveness_appear_together(driver, keys):
    assert driver.run(scripts.register(keys, "w1", b"facts", 5000)) == 1
    assert driver.run(plain("HGET", keys.consumers, "w1")) == b"facts"
    assert 0 < driver.run(plain("PTTL", keys.alive("w1"))) <= 5000


def test_registering_again_renews_both(driver, keys):
    driver.run(scripts.register(keys, "w1", b"old", 100))
    driver.run(scripts.register(keys, "w1", b"new", 60_000))
    assert driver.run(plain("HGET", keys.consumers, "w1")) == b"new"
    assert driver.run(plain("PTTL", keys.alive("w1"))) > 50_000
    assert state_of(driver, keys).consumers == {"w1"}


def test_a_beat_renews_what_lives_and_tells_of_what_does_not(driver, keys):
    driver.run(scripts.register(keys, "w1", b"", 1000))
    assert driver.run(scripts.beat(keys, "w1", 60_000)) is True
    assert driver.run(plain("PTTL", keys.alive("w1"))) > 50_000
    assert driver.run(scripts.beat(keys, "w2", 60_000)) is False
    assert driver.run(plain("EXISTS", keys.alive("w2"))) == 0


def test_a_worker_can_start_and_beat_when_redis_is_full(own, own_keys):
    with full(own):
        assert own.run(scripts.register(own_keys, "w1", b"", 5000)) == 1
        assert own.run(scripts.beat(own_keys, "w1", 5000)) is True
    assert own.run(plain("EXISTS", own_keys.alive("w1"))) == 1
