"""room.lua: whether a limit lets one more in, by the numbers of the one that asks (rule 28)."""

from __future__ import annotations

from tests.redis.flowkit import c, t

HOUR = 3_600_000_000


def test_one_that_lacks_a_rate_waits_there_and_keeps_nothing(flow):
    flow.send(t(HOUR))
    flow.send(c())
    waits, _ = flow.send(c(), t(HOUR))
    assert flow.line("c:x") == waits
    _, two = flow.read()
    flow.end(two)
    assert (flow.line("t:x"), flow.holders("c:x")) == (waits, [])


def test_the_numbers_of_the_message_that_asks_decide(flow):
    flow.send(c(most=2), count=2)
    new, _ = flow.send(c(most=3))
    old, _ = flow.send(c(most=2))
    newer, _ = flow.send(c(most=3))
    assert (len(flow.on_lane()), flow.parked()) == (3, sorted(old + newer))
    assert new[0] in flow.on_lane()
    one, two, three = flow.read()
    flow.end(one)
    assert flow.line("c:x") == old + newer  # the first in line asks for 2, and 2 run
    flow.end(two)
    flow.end(three)
    assert flow.line("c:x") == []
