"""Rule 27: each occurrence of a schedule happens once, not early, and as the schedule is now."""

from __future__ import annotations

import pytest

from streamwork import Streamwork
from streamwork.errors import StoreError
from streamwork.model.calendar import every
from streamwork.model.schedule import encode_schedule
from streamwork.schedules import schedule_of
from streamwork.store.commands import plain
from streamwork.store.planning import Fired, fire, plan, unique_name
from tests.faults.proof import must_fail
from tests.helpers import body_of, state_of
from tests.redis.kit import dump, full, mark_of, set_mark, signals

NAME, RECORD = "nightly", b"the record"


def fired(own, keys, at_ms, overlap="queue", limits=b""):
    """Fire an occurrence as one of many processes does, with a message of its own."""
    task_id, body = body_of("tests.echo")
    return own.run(fire(keys, NAME, RECORD, at_ms, Fired(task_id, b"1:\n1,0,0,1,0\n" + body, limits), overlap))


def marked_at(own, keys):
    """Return the watermark, ms."""
    return int(mark_of(own, keys, NAME).partition(" ")[0])


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


def paused(own, keys):
    planned(own, keys)
    own.run(plan(keys, NAME, "pause"))
    fired(own, keys, 2_000)
    assert state_of(own, keys).due == {}, "what is paused fires"


def paused_and_replaced(own, keys):
    planned(own, keys)
    own.run(plan(keys, NAME, "pause"))
    own.run(plan(keys, NAME, "replace", b"another one"))
    assert mark_of(own, keys, NAME) == "1000 p", "what is paused fires once it is replaced"


def overlapping(own, keys):
    planned(own, keys)
    assert fired(own, keys, 2_000, "skip", b"its limits") == "fired"
    fired(own, keys, 3_000, "skip", b"its limits")
    assert sorted(state_of(own, keys).due.values()) == [2_000], "it runs beside itself"


def ended_by_the_next(own, keys):
    planned(own, keys)
    fired(own, keys, 2_000, "cancel-running", b"its limits")
    (before,) = state_of(own, keys).due
    fired(own, keys, 3_000, "cancel-running", b"its limits")
    assert list(state_of(own, keys).cancelled) == [before], "it runs beside itself"


def held_back_by_nobody(own, keys):
    planned(own, keys)
    own.run(plain("HSET", keys.unique, unique_name(NAME), "f" * 32 + " 0"))
    assert fired(own, keys, 2_000, "skip", b"its limits") == "fired", "it waits for one that is nowhere"


def limited(own, keys):
    planned(own, keys)
    fired(own, keys, 2_000, "queue", b"its limits")
    assert own.run(plain("HVALS", keys.flow)) == [b"\nits limits"], "its message has no limits"


def spoiled(own, keys):
    planned(own, keys)
    own.run(plain("SET", keys.flow, "foreign"))
    before = dump(own, "own")
    with pytest.raises(StoreError):
        fired(own, keys, 2_000, "skip", b"its limits")
    assert dump(own, "own") == before, "an occurrence is there by halves"


def filled(own, keys):
    planned(own, keys)
    with full(own):
        try:
            fired(own, keys, 2_000)
        except StoreError:
            pass
    assert (state_of(own, keys).due, marked_at(own, keys)) == ({}, 1_000), "a full Redis took new work"


def declared_anew(own, keys):
    planned(own, keys)
    own.run(plan(keys, NAME, "declare", b"another one"))
    assert marked_at(own, keys) == 1_000, "what was missed since is forgotten"


def new(own, keys):
    before = own.server_ms()
    own.run(plan(keys, NAME, "add", RECORD))
    assert marked_at(own, keys) >= before, "it makes up for what was before it"


def resumed(own, keys):
    planned(own, keys)
    before = own.server_ms()
    own.run(plan(keys, NAME, "pause"))
    own.run(plan(keys, NAME, "resume"))
    assert marked_at(own, keys) >= before, "it makes up for what fell into its pause"


def added_again(own, keys):
    planned(own, keys)
    before = own.server_ms()
    own.run(plan(keys, NAME, "remove"))
    own.run(plan(keys, NAME, "add", RECORD))
    assert marked_at(own, keys) >= before, "it makes up for what was before it"


def replaced_by_hand(own, keys):
    call = Streamwork("own").call("tests.echo")
    record = encode_schedule(schedule_of(NAME, call, every(60_000), "last", "queue", is_declared=True))
    own.run(plan(keys, NAME, "declare", record))
    own.run(plan(keys, NAME, "replace", b"another one"))
    assert own.run(plain("HGET", keys.schedules, NAME)) == record, "what stands in code is gone, and nobody fires this"


def told(own, keys):
    own.run(plan(keys, NAME, "add", RECORD))
    assert signals(own, keys) == [("schedules", NAME)], "nobody hears of it"


SCENARIOS = {
    "watermark": (raced, "happens twice"),
    "never_early": (fast_clock, "happens early"),
    "record_unchanged": (unheard, "still fires"),
    "mark_moves": (raced, "happens twice"),
    "paused_schedule": (paused, "what is paused fires"),
    "paused_mark_kept": (paused_and_replaced, "what is paused fires"),
    "no_overlap": (overlapping, "beside itself"),
    "overlap_named": (overlapping, "beside itself"),
    "overlap_cancelled": (ended_by_the_next, "beside itself"),
    "overlap_of_the_gone": (held_back_by_nobody, "that is nowhere"),
    "fire_limited": (limited, "has no limits"),
    "fire_types_first": (spoiled, "by halves"),
    "fire_refused_whole": (filled, "took new work"),
    "mark_kept": (declared_anew, "is forgotten"),
    "mark_from_now": (new, "makes up for"),
    "resumed_from_now": (resumed, "makes up for"),
    "mark_removed": (added_again, "makes up for"),
    "declared_stands": (replaced_by_hand, "stands in code is gone"),
    "schedule_told": (told, "nobody hears of it"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_occurrence_happens_once_in_time_and_as_planned(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_it_does_not(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)
