"""Rules 25 and 29: a cancel commits only what it removed itself; each delivery has a fence of its own."""

from __future__ import annotations

import pytest

from streamwork.store import scripts
from streamwork.wire.message import encode_result
from tests.faults.proof import must_fail
from tests.helpers import state_of
from tests.redis.kit import LANE, deliver, hand_over, settle
from tests.redis.lost import adopt, destroy, heal, restored

RECORD = encode_result("cancel", "cancelled", b"\xc0")


def cancel(own, keys, delivery):
    where = {"lane": LANE, "entry": delivery.entry.decode()}
    return own.run(scripts.cancel(keys, delivery.task_id, "me", RECORD, 60_000, "me", **where))


def raced(own, keys):
    """The body ends well while somebody cancels it."""
    (delivery,) = deliver(own, keys, "w1")
    answer = cancel(own, keys, delivery)
    assert settle(own, keys, delivery)
    assert state_of(own, keys).counts == {"succeeded": 1}, "cancelled and succeeded"
    assert answer == "requested"


def too_late(own, keys):
    held = deliver(own, keys, "w1", 2)
    for delivery, keep_ms in zip(held, (60_000, 0), strict=True):
        assert settle(own, keys, delivery, keep_ms=keep_ms)
        cancel(own, keys, delivery)
    assert state_of(own, keys).cancelled == {}, "a mark that nobody will ever free"


SCENARIOS = {
    "cancel_what_it_removed": (raced, "cancelled and succeeded"),
    "cancel_of_the_ended": (too_late, "a mark that"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_cancel_does_not_make_a_second_outcome(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_it_does(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)


def fences(own, keys):
    """Its own consumer gets it again and again, as by an audit: nothing else tells the runs apart."""
    (delivery,) = deliver(own, keys, "w1")
    seen = [delivery]
    for _ in range(3):
        seen.append(hand_over(own, keys, seen[-1], "w1"))
    assert len({each.token for each in seen}) == len(seen), "two deliveries have one fence"
    for old in seen[:-1]:
        assert not settle(own, keys, old, "D"), "an old fence still opens"
    assert settle(own, keys, seen[-1], "D")


def test_each_delivery_has_a_fence_of_its_own(own, own_keys):
    fences(own, own_keys)


def test_without_a_growing_count_it_has_not(own, own_keys):
    must_fail("fence_grows", "two deliveries have one fence", fences, own, own_keys)


def fence_after_loss(server, own, keys):
    (first,) = deliver(own, keys, "w1")
    old = hand_over(own, keys, first, "w1")
    destroy(own, keys)
    heal(own, keys)
    restored(server.url, keys)
    (new,) = adopt(own, keys, "w1")
    assert new.entry == old.entry
    assert new.token != old.token, "a delivery after the loss has the fence of one before"
    assert not settle(own, keys, old, "D")
    assert settle(own, keys, new, "D")


def test_the_fences_after_a_lost_group_are_new(server, own, own_keys):
    fence_after_loss(server, own, own_keys)


def test_counted_from_one_again_they_are_not(server, own, own_keys):
    must_fail("fence_after_loss", "the fence of one before", fence_after_loss, server, own, own_keys)
