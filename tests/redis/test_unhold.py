"""unhold.lua: what waited for a paused task goes on in order once that is resumed, and no more."""

from __future__ import annotations

import pytest

from streamwork.errors import StoreFull
from streamwork.model.pausing import HELD_FROM, held_score, mark_of
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.store.pausing import pause, unhold
from streamwork.wire.message import decode_message
from tests.helpers import state_of
from tests.redis.kit import LANE, deliver, full, settle, signals


def hold(driver, keys, task, count):
    """Set messages aside as a worker does that meets a paused task; returns their ids."""
    held = deliver(driver, keys, "w1", count)
    for run in held:
        assert settle(driver, keys, run, "R", run_at=held_score(task))
    return [run.task_id for run in held]


def test_what_is_held_is_never_due_and_goes_on_in_order_once_its_task_is_not_paused(driver, keys):
    first = hold(driver, keys, "a", 7)
    other = hold(driver, keys, "b", 3)
    for task in "ab":
        driver.run(pause(keys, mark_of(task), b"{}"))
    assert driver.run(scripts.promote(keys, [LANE], 100)).moved == 0
    assert driver.run(unhold(keys, 100)) == 0
    driver.run(pause(keys, mark_of("a"), b""))
    assert [driver.run(unhold(keys, 4)) for _ in range(3)] == [4, 3, 0]
    assert (signals(driver, keys)[-1][0], signals(driver, keys)[-3][0]) == ("due", "resume")
    assert driver.run(scripts.promote(keys, [LANE], 100)).moved == 7
    rows = driver.run(plain("XRANGE", keys.lane(LANE), "-", "+"))[10:]
    assert [decode_message(fields[3]).id for _, fields in rows] == sorted(first)
    assert sorted(state_of(driver, keys).due) == sorted(other)
    driver.run(pause(keys, mark_of("b"), b""))
    assert driver.run(unhold(keys, 100)) == 3


def test_what_is_scheduled_is_left_alone(driver, keys):
    driver.run(plain("ZADD", keys.due, 253_402_300_799_000, "in 9999", 1, "long ago"))
    assert driver.run(unhold(keys, 100)) == 0
    assert driver.run(plain("ZSCORE", keys.due, "in 9999")) == b"253402300799000"
    assert HELD_FROM > 253_402_300_799_000
    driver.run(plain("DEL", keys.due))


def test_full_redis_resumes(own, own_keys):
    hold(own, own_keys, "a", 2)
    own.run(pause(own_keys, mark_of("a"), b"{}"))
    with full(own):
        with pytest.raises(StoreFull):
            own.run(pause(own_keys, mark_of("b"), b"{}"))
        assert own.run(pause(own_keys, mark_of("a"), b""))
        assert own.run(unhold(own_keys, 100)) == 2
        assert own.run(scripts.promote(own_keys, [LANE], 10)).moved == 2
    assert own.run(plain("EXISTS", QueueKeys("own", "default").paused)) == 0
