"""pulse.lua: one reaper on duty, and nobody is taken after Redis stood still (rule 14)."""

from __future__ import annotations

import os
import signal
import time

from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.helpers import wait_until
from tests.redis.kit import deliver, full


def pulse(driver, keys, who, life_ms=5000, grace_ms=10_000, near_ms=100):
    return driver.run(scripts.pulse(keys, who, life_ms, grace_ms, near_ms))


def in_grace(driver, keys):
    return driver.run(plain("EXISTS", keys.grace)) == 1


def test_the_first_beat_counts_as_a_lapse(driver, keys):
    assert pulse(driver, keys, "a") == (True, True, 5000)
    assert in_grace(driver, keys)
    assert driver.run(plain("PTTL", keys.grace)) > 9000


def test_the_one_on_duty_renews_and_the_other_stands_by(driver, keys):
    pulse(driver, keys, "a", life_ms=1000)
    on_duty, lapsed, left = pulse(driver, keys, "b")
    assert (on_duty, lapsed) == (False, False)
    assert 0 < left <= 1000
    assert pulse(driver, keys, "a") == (True, False, 5000)
    assert driver.run(plain("PTTL", keys.pulse)) > 4000
    assert driver.run(plain("GET", keys.pulse)) == b"a"


def test_a_standby_takes_over_before_it_lapses_and_without_grace(driver, keys):
    pulse(driver, keys, "a", life_ms=400)
    driver.run(plain("DEL", keys.grace))
    assert pulse(driver, keys, "b", near_ms=100)[0] is False
    assert pulse(driver, keys, "b", near_ms=400) == (True, False, 5000)
    assert not in_grace(driver, keys)
    assert pulse(driver, keys, "a")[0] is False  # it was too slow and hears so


def test_a_lapse_starts_the_grace_for_whoever_comes_first(driver, keys):
    pulse(driver, keys, "a", life_ms=20, grace_ms=1)
    wait_until(lambda: not driver.run(plain("EXISTS", keys.pulse, keys.grace)), "the pulse to lapse")
    assert pulse(driver, keys, "b") == (True, True, 5000)
    assert pulse(driver, keys, "a")[:2] == (False, False)
    assert in_grace(driver, keys)


def test_nobody_is_taken_after_redis_stood_still(server, own, own_keys):
    for name in ("w1", "w2"):
        own.run(scripts.register(own_keys, name, b"", 300))
        deliver(own, own_keys, name)
    pulse(own, own_keys, "reaper", life_ms=150, grace_ms=1)
    wait_until(lambda: not in_grace(own, own_keys), "the grace of the start to end")
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(0.4)  # the stall itself: longer than a liveness key, so every beat is late
    os.kill(server.pid, signal.SIGCONT)
    assert pulse(own, own_keys, "reaper", life_ms=150, grace_ms=300)[1] is True
    for name in ("w1", "w2"):
        assert own.run(scripts.take(own_keys, "1:", name, mode="reap")) == -1
        assert own.run(scripts.revive(own_keys, name, 60_000)) == "revived"
    wait_until(lambda: not in_grace(own, own_keys), "the grace to end")
    for name in ("w1", "w2"):
        assert own.run(scripts.take(own_keys, "1:", name, mode="reap")) == -2


def test_it_works_when_redis_is_full(own, own_keys):
    with full(own):
        assert pulse(own, own_keys, "a") == (True, True, 5000)
        assert pulse(own, own_keys, "a") == (True, False, 5000)
        assert pulse(own, own_keys, "b", near_ms=5000)[0] is True
