"""watch.lua: a client's reply stream is there before anyone waits, and always has a life (rule 34)."""

from __future__ import annotations

import pytest

from streamwork.errors import StoreRejected
from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.redis.kit import deliver, full, settle


def watch(driver, keys, life_ms=60_000):
    return driver.run(scripts.watch(keys, "c1", life_ms))


def test_the_first_call_makes_the_stream_and_the_next_only_renew_it(driver, keys):
    assert watch(driver, keys, 500) is True
    before = driver.run(plain("XRANGE", keys.reply("c1"), "-", "+"))
    assert watch(driver, keys) is False
    assert driver.run(plain("XRANGE", keys.reply("c1"), "-", "+")) == before
    assert 50_000 < driver.run(plain("PTTL", keys.reply("c1"))) <= 60_000


def test_a_made_stream_has_its_life_from_the_start(driver, keys):
    watch(driver, keys)
    assert 50_000 < driver.run(plain("PTTL", keys.reply("c1"))) <= 60_000


def test_only_a_stream_that_is_there_hears_of_an_end(driver, keys):
    watch(driver, keys)
    heard, unheard = deliver(driver, keys, "w1", 2)
    assert settle(driver, keys, heard, reply="c1")
    assert settle(driver, keys, unheard, reply="c2")
    rows = driver.run(plain("XRANGE", keys.reply("c1"), "-", "+"))
    assert [fields[1] for _, fields in rows] == [b"", heard.task_id.encode()]
    assert driver.run(plain("EXISTS", keys.reply("c2"))) == 0


def test_a_life_that_is_none_leaves_no_stream_without_one(driver, keys):
    with pytest.raises(StoreRejected):
        driver.run(scripts.watch(keys, "c1", "soon"))
    assert driver.run(plain("EXISTS", keys.reply("c1"))) == 0


def test_a_stream_that_is_there_is_renewed_when_redis_is_full(own, own_keys):
    watch(own, own_keys, 5_000)
    with full(own):
        assert watch(own, own_keys) is False
    assert own.run(plain("PTTL", own_keys.reply("c1"))) > 50_000
