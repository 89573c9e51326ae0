"""Rule 27: each occurrence of a schedule happens once, not early, and as the schedule is now."""

from __future__ import annotations

import pytest

from streamwork.store.planning import Fired, fire, plan
from tests.faults.proof import must_fail
from tests.helpers import body_of, state_of
from tests.redis.kit import set_mark

NAME, RECORD = "nightly", b"the record"


def fired(own, keys, at_ms):
    """Fire an occurrence as one of many processes does, with a message of its own."""
    task_id, body = body_of("tests.echo")
    return own.run(fire(keys, NAME, RECORD, at_ms, Fired(task_id, b"1:\n1,0,0,1,0\n" + body), "queue"))


def planned(own, keys):
    """A schedule whose last occurrence was at 1,000 ms of 1970."""
    own.run(plan(keys, NAME, "add", RECORD))
    set_mark(own, keys, NAME, 1_000)


def raced(own, keys):
    """Three processes have computed the same occurrences, and one of them is behind."""
    planned(own, keys)
    for at_ms in (2_000, 2_000, 3_000, 2_000, 3_000):
        fired(own, keys, at_ms)
    assert sorted(state_of(own, keys).due.values()) == [2_000, 3_000], "an occurrence happens twice"


def fast_clock(own, keys):
    planned(own, keys)
    fired(own, keys, own.server_ms() + 3_600_000)
    assert state_of(own, keys).due == {}, "it happens early"


def unheard(own, keys):
    planned(own, keys)
    own.run(plan(keys, NAME, "replace", b"another one"))
    fired(own, keys, 2_000)
    assert state_of(own, keys).due == {}, "what was replaced still fires"


SCENARIOS = {
    "watermark": (raced, "happens twice"),
    "never_early": (fast_clock, "happens early"),
    "record_unchanged": (unheard, "still fires"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_occurrence_happens_once_in_time_and_as_planned(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_it_does_not(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)
