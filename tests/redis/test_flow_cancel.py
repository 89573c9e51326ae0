"""Limits and cancel.lua: what waits leaves its line or its turn, and who was behind it goes on (rules 25, 28)."""

from __future__ import annotations

import pytest

from tests.helpers import state_of
from tests.redis.flowkit import c, g, k

ALL = (c(), k(), g(most=1))


@pytest.mark.parametrize("limit", ALL, ids=lambda limit: limit[0])
def test_cancelling_what_waits_leaves_the_line_and_wakes_nobody(flow, limit):
    ids, _ = flow.send(limit, count=3)
    assert flow.cancel(ids[1]) == "cancelled"
    assert (flow.holders(limit[1]), flow.parked()) == (ids[:1], ids[2:])
    assert state_of(flow.driver, flow.keys).results[ids[1]].state == "cancelled"
    assert flow.cancel(ids[1]) == "cancelled"
    assert state_of(flow.driver, flow.keys).counts == {"cancelled": 1}
    for delivery in flow.read():
        flow.end(delivery)
    assert flow.on_lane() == ids[2:]


def test_cancelling_what_waits_for_its_retry_frees_its_turn_and_wakes_the_next(flow):
    (first,), _ = flow.send(k())
    second, _ = flow.send(k())
    (delivery,) = flow.read()
    flow.end(delivery, "R", run_at=4_000_000_000_000)
    assert flow.cancel(first) == "cancelled"
    assert flow.holders("k:x") == second
    assert flow.due() == second  # cancel knows no lane but its own
    flow.promote()
    assert flow.on_lane() == second


def test_what_is_parked_with_a_turn_elsewhere_frees_that_when_it_is_cancelled(flow):
    (first,), _ = flow.send(k(), c())
    flow.send(c())
    behind, _ = flow.send(k())
    (delivery,) = flow.read()
    flow.end(delivery, "R")
    flow.promote()
    assert flow.line("c:x") == [first]
    assert flow.cancel(first) == "cancelled"
    assert flow.holders("k:x") == behind
