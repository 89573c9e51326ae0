"""Rules 33 and 34: the backlog is right at any moment, and no key is left without a TTL or an owner."""

from __future__ import annotations

import pytest

from streamwork.store import healing, scripts
from streamwork.store.commands import plain
from tests import leaks
from tests.faults.living.kit import must_fail
from tests.helpers import state_of
from tests.redis.kit import LANE, deliver, end, put, read, settle


def maintain(driver, keys):
    return driver.run(healing.maintain(keys, LANE, "0", 10_000, 7))


def the_backlog_is_right(driver, keys):
    held = deliver(driver, keys, "w1", 5)
    put(driver, keys, 2)
    for delivery, op in zip(held, "SKDR", strict=False):
        assert settle(driver, keys, delivery, op)
    state = state_of(driver, keys)
    assert (state.undelivered, state.in_flight, len(state.due)) == (2, 1, 1), "what has ended counts as work to do"


def drift_is_put_right(driver, keys):
    deliver(driver, keys, "w1", 3)
    put(driver, keys, 2)
    driver.run(plain("HSET", keys.settled, LANE, 1))
    maintain(driver, keys)
    assert state_of(driver, keys).settled == {LANE: 1}, "counters were changed while nobody could tell"
    read(driver, keys, "w1")
    maintain(driver, keys)
    assert state_of(driver, keys).undelivered == 0, "counters that drifted stay wrong"


COUNTED = [
    (the_backlog_is_right, "counted", "has ended counts as work"),
    (drift_is_put_right, "re-checked", "drifted stay wrong"),
    (drift_is_put_right, "re-checked in time", "while nobody could tell"),
]


@pytest.mark.parametrize("scenario", [the_backlog_is_right, drift_is_put_right])
def test_the_backlog_is_right(driver, keys, scenario):
    scenario(driver, keys)


@pytest.mark.parametrize(("scenario", "guard", "says"), COUNTED)
def test_without_its_counters_it_is_not(unguarded, keys, scenario, guard, says):
    must_fail(scenario, unguarded(guard), keys, says=says)


def nothing_is_left_without_a_reason(driver, keys):
    driver.run(scripts.watch(keys, "here", 60_000))
    driver.run(scripts.register(keys, "w1", b"", 60_000))
    held = deliver(driver, keys, "w1", 6)
    for delivery in held[:3]:
        driver.run(plain("HSET", keys.moved, delivery.task_id, f"{LANE}\n{delivery.entry.decode()}"))
        driver.run(plain("HSET", keys.cancelled, delivery.task_id, "me"))
        for key, value in ((keys.suspects, "1,0,x"), (keys.kept, "x")):
            driver.run(plain("HSET", key, f"{LANE}/{delivery.entry.decode()}", value))
    ops, clients = ("Sm", "Km", "Dm", "S", "K", "C"), ("here", "gone") * 3
    ends = [end(keys, each, op, reply=client) for each, op, client in zip(held, ops, clients, strict=True)]
    assert driver.run(scripts.settle(keys, "w1", ends)) == []
    driver.run(plain("DEL", keys.alive("w1")))
    left = leaks.leaked(driver, keys.namespace)
    assert left == [], f"keys are left for ever: {left}"
    assert driver.run(plain("EXISTS", keys.reply("gone"))) == 0, "a reply stream is made that nobody reads"


KEPT = [
    ("reply stream's life", r"reply:here: no TTL"),
    ("reply stream made by its client", r"reply:gone: no TTL"),
    ("result's life", r"result:\w+: no TTL"),
    ("sender's life", r"sender:\w+: no TTL"),
    ("settle mark's life", r"settle:w1: no TTL"),
    ("freed", r"kept: 1:/[\d-]+ was settled"),
    ("freed", r"moved: \w+ has ended"),
]


def test_nothing_is_left_without_a_reason(driver, keys):
    nothing_is_left_without_a_reason(driver, keys)


@pytest.mark.parametrize(("guard", "says"), KEPT)
def test_without_a_ttl_or_an_owner_it_is(unguarded, keys, guard, says):
    must_fail(nothing_is_left_without_a_reason, unguarded(guard), keys, says=says)


def a_reply_stream_has_a_bound(driver, keys):
    driver.run(scripts.watch(keys, "idle", 60_000))
    for _ in range(23):
        ends = [end(keys, delivery, reply="idle", keep_ms=0) for delivery in deliver(driver, keys, "w1", 500)]
        assert driver.run(scripts.settle(keys, "w1", ends)) == []
    length = driver.run(plain("XLEN", keys.reply("idle")))
    assert length <= 10_200, f"a reply stream that nobody reads has grown to {length}"


def test_a_reply_stream_has_a_bound(driver, keys):
    a_reply_stream_has_a_bound(driver, keys)


def test_without_a_bound_it_grows(unguarded, keys):
    must_fail(a_reply_stream_has_a_bound, unguarded("reply stream's bound"), keys, says="has grown to 11501")
