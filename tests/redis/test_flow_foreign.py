"""Something else stands under a key of limits: an end still counts, and whatever cannot be done whole is not begun."""

from __future__ import annotations

import pytest

from streamwork.errors import StoreError
from streamwork.model.state import State
from streamwork.wire.message import decode_journal
from tests.redis.flowkit import c, g, t, u, w
from tests.redis.kit import LANE, dump

HOUR = 3_600_000_000
SPOILED = ["permits", "parked", "parked_body", "turns", "rates", "starts", "wake", "flow_state", "unique"]


def spoil(flow, name):
    """Put a text where limits are kept; returns all that Redis holds."""
    key = getattr(flow.keys, name)
    flow.run("DEL", key)
    flow.run("SET", key, "foreign")
    return dump(flow.driver, "own")


def states(flow):
    return [decode_journal(fields[1]).state for _, fields in flow.run("XRANGE", flow.keys.journal, "-", "+")]


@pytest.mark.parametrize("op", ["S", "R", "D"])
@pytest.mark.parametrize("name", SPOILED)
def test_an_end_counts_whole_all_the_same(own_flow, name, op):
    own_flow.send(c(), g(), u(), count=1)
    (held,) = own_flow.read()
    spoil(own_flow, name)
    own_flow.end(held, op)
    assert states(own_flow) == [{"S": State.SUCCEEDED, "R": "retried", "D": State.DEAD}[op]]
    assert own_flow.on_lane() == []
    assert own_flow.due() == ([held.task_id] if op == "R" else [])


@pytest.mark.parametrize("name", SPOILED)
def test_what_cannot_be_done_whole_is_not_begun(own_flow, name):
    one, two = (own_flow.send(c(), t(HOUR, 5), w(5, HOUR), count=1)[0][0] for _ in range(2))
    own_flow.send(c("c:later"), when="+1")
    (held,) = own_flow.read()
    before = spoil(own_flow, name)
    for attempt in (
        lambda: own_flow.begin(held),
        lambda: own_flow.cancel(two),
        lambda: own_flow.promote((LANE,)),
    ):
        with pytest.raises(StoreError, match="-TYPE"):
            attempt()
        assert dump(own_flow.driver, "own") == before
    assert one == held.task_id
