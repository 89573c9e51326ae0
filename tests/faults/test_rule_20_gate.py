"""Rule 20: one outcome counts, whoever else still has the message in hand."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from streamwork.store import scripts
from tests.apps import faults
from tests.faults.proof import must_fail
from tests.helpers import state_of, wait_until
from tests.redis.kit import LANE, deliver, hand_over, owners, settle
from tests.system.kit import TTL_S, successes

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


def woken_late(start, send, notes, look, without=()):
    """A worker freezes past its life in mid-body; a peer runs its message, and then it wakes up and ends it too."""
    zombie = start(without=without)
    handle = send(faults.hold, notes.path, "one")
    notes.until(1)
    start(without=without)
    os.killpg(zombie.pid, signal.SIGSTOP)
    wait_until(lambda: all(is_stopped(pid) for pid in (zombie.pid, *zombie.children)), "all of it is frozen")
    notes.until(2, within_s=20 * TTL_S)
    notes.go()
    assert handle.result(timeout=20) == (1, 0)
    os.killpg(zombie.pid, signal.SIGCONT)
    told = lambda: "lease lost" in zombie.text() or successes(look())[handle.id] > 1
    wait_until(told, "what it wrote late was answered", 20)
    assert successes(look()) == {handle.id: 1}, "who woke up late committed a second outcome"


def is_stopped(pid):
    """Whether the kernel says that a process is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_worker_that_wakes_up_late_commits_nothing(start, send, notes, look):
    woken_late(start, send, notes, look)


def test_without_the_gate_it_commits_a_second_outcome(start, send, notes, look):
    must_fail("gate", "a second outcome", woken_late, start, send, notes, look, without=("gate",))
