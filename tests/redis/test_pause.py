"""pause.lua: what is paused is kept as it was first said, and told each time."""

from __future__ import annotations

from streamwork.model.pausing import mark_of
from streamwork.store.commands import plain
from streamwork.store.pausing import pause
from tests.redis.kit import signals


def test_a_mark_is_set_and_taken_away_once_and_told_each_time(driver, keys):
    mark = mark_of("shop.mail")
    assert [driver.run(pause(keys, mark, known)) for known in (b"{}", b"other", b"", b"")] == [True, False, True, False]
    assert driver.run(plain("EXISTS", keys.paused)) == 0
    assert signals(driver, keys) == [("pause", mark)] * 2 + [("resume", mark)] * 2
    driver.run(pause(keys, mark, b"{}"))
    driver.run(pause(keys, mark, b"other"))
    assert driver.run(plain("HGET", keys.paused, mark)) == b"{}"
