"""Rule 28, flow.lua: what a start spends and an end gives back, compared before it is removed."""

from __future__ import annotations

import pytest

from tests.faults.limited import begun
from tests.faults.proof import must_fail
from tests.redis.flowkit import c, g, k, t, u, w

HOUR = 3_600_000_000
OTHER = "f" * 32


def spent(flow, limit):
    flow.end(begun(flow, limit))
    ids, _ = flow.send(limit)
    assert flow.parked() == ids, "more have started than may"


def tokens(flow):
    spent(flow, t(HOUR))


def starts(flow):
    spent(flow, w(1, HOUR))


def one_each(flow):
    begun(flow, t(HOUR, 2))
    ids, _ = flow.send(t(HOUR, 2))
    assert flow.on_lane()[-1:] == ids, "one start has taken two tokens"


def next_one(flow):
    flow.send(t(HOUR), count=2)
    (delivery,) = flow.read()
    flow.begin(delivery)
    assert flow.promote().next_at_ms is not None, "nobody looks when the next token is there"


def bucket_life(flow):
    begun(flow, t(HOUR))
    assert flow.run("PTTL", flow.keys.rates) > 0, "a bucket is kept for ever"


def starts_life(flow):
    begun(flow, w(1, HOUR))
    assert flow.run("PTTL", flow.keys.starts) > 0, "the starts of a window are kept for ever"


def long_and_short(flow):
    begun(flow, t(HOUR))
    begun(flow, t(1000, name="t:short"))
    assert flow.run("PTTL", flow.keys.rates) > HOUR // 2000, "spent tokens are soon forgotten"


def until_start(flow):
    begun(flow, u(until_start=1))
    ids, _ = flow.send(u(until_start=1))
    assert flow.on_lane()[-1:] == ids, "it has started, and the next one cannot come"


def anothers_at_start(flow):
    flow.send(u(until_start=1))
    (delivery,) = flow.read()
    flow.run("HSET", flow.keys.unique, "u:x", f"{OTHER} 0")
    assert flow.begin(delivery) == [1]
    assert flow.owner() == OTHER, "another one's name is freed"


def anothers(flow):
    """One that is replaced on its lane ends after the other has its name."""
    ids, _ = flow.send(u(policy="p"), count=2)
    first, _ = flow.read()
    flow.end(first, "C")
    assert flow.owner() == ids[1], "another one's name is freed"


def name_of_a_retry(flow):
    ids, _ = flow.send(u())
    (delivery,) = flow.read()
    flow.end(delivery, "R", run_at=4_000_000_000_000)
    flow.send(u())
    assert flow.on_lane() == [], "two of a kind are there"
    assert flow.owner() == ids[0]


def turn_of_a_retry(flow):
    flow.send(k(), count=2)
    (delivery,) = flow.read()
    flow.end(delivery, "R", run_at=4_000_000_000_000)
    assert flow.on_lane() == [], "another one came between two attempts"


def place_of_a_retry(flow):
    ids, _ = flow.send(c(), count=2)
    (delivery,) = flow.read()
    flow.end(delivery, "R", run_at=4_000_000_000_000)
    assert flow.on_lane() == ids[1:], "what waits for its time keeps others out"


def nothing_left(flow):
    flow.send(c(), k(), g(), u())
    (delivery,) = flow.read()
    flow.end(delivery)
    assert flow.rest() == {}, "what has ended leaves something behind"


def next_woken(flow):
    ids, _ = flow.send(c(), count=2)
    (delivery,) = flow.read()
    flow.end(delivery)
    assert flow.on_lane() == ids[1:], "there is room, and the next one waits on"


SCENARIOS = {
    "flow_token_spent": (tokens, "more have started"),
    "flow_start_noted": (starts, "more have started"),
    "flow_token_once": (one_each, "two tokens"),
    "flow_spent_and_noted": (next_one, "nobody looks"),
    "flow_buckets_end": (bucket_life, "kept for ever"),
    "flow_starts_end": (starts_life, "kept for ever"),
    "flow_longest_life": (long_and_short, "soon forgotten"),
    "flow_name_until_start": (until_start, "cannot come"),
    "flow_name_compared_at_start": (anothers_at_start, "another one's name"),
    "flow_name_compared": (anothers, "another one's name"),
    "flow_name_through_retries": (name_of_a_retry, "two of a kind"),
    "flow_turn_through_retries": (turn_of_a_retry, "between two attempts"),
    "flow_freed_by_retries": (place_of_a_retry, "keeps others out"),
    "flow_record_freed": (nothing_left, "leaves something behind"),
    "flow_next_woken": (next_woken, "waits on"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_given_back_is_ones_own_and_the_next_one_has_it(own_flow, name):
    SCENARIOS[name][0](own_flow)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_of_what_is_freed_it_is_not(own_flow, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own_flow)
