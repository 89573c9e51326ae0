"""Rule 20: one outcome counts, whoever else still has the message in hand."""

from __future__ import annotations

import pytest

from streamwork.store import scripts
from tests.faults.proof import must_fail
from tests.helpers import state_of
from tests.redis.kit import LANE, deliver, hand_over, owners, settle

OPS = "SKCDR"


def zombie_success(own, keys):
    """Whoever settles first counts; the other one was taken for dead and never knew."""
    for op in OPS:
        (old,) = deliver(own, keys, "w1")
        new = hand_over(own, keys, old, "w2")
        assert settle(own, keys, new, op)
        settle(own, keys, old)
    state = state_of(own, keys)
    assert sum(state.counts.values()) == len(OPS), "two outcomes of one message"
    assert len(state.journal) == len(OPS)


def zombie_steers(own, keys):
    """What another one runs is retried or killed by who lost it."""
    for op in "RD":
        (old,) = deliver(own, keys, "w1")
        new = hand_over(own, keys, old, "w2")
        settle(own, keys, old, op)
        assert owners(own, keys) == {new.entry: ("w2", new.count)}, "what runs was taken from who runs it"
        assert settle(own, keys, new)


def own_zombie(own, keys):
    """The same process has it a second time, found by its audit, and the first run of it ends badly."""
    for op in "RD":
        (old,) = deliver(own, keys, "w1")
        new = hand_over(own, keys, old, "w1")
        settle(own, keys, old, op)
        assert owners(own, keys) == {new.entry: ("w1", new.count)}, "an earlier delivery ended a later one"
        assert settle(own, keys, new)


def zombie_gives_back(own, keys):
    for consumer in ("w2", "w1"):
        (old,) = deliver(own, keys, "w1")
        new = hand_over(own, keys, old, consumer)
        own.run(scripts.release(keys, LANE, "w1", [(old.entry, old.count)]))
        assert owners(own, keys) == {new.entry: (consumer, new.count)}, "what runs was given back"
        assert settle(own, keys, new)


SCENARIOS = {
    "gate": (zombie_success, "two outcomes"),
    "owner_check": (zombie_steers, "taken from who runs it"),
    "delivery_count": (own_zombie, "an earlier delivery"),
    "release_owner": (zombie_gives_back, "was given back"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_outcome_counts(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_two_do(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)
