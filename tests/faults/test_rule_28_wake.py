"""Rule 28, flow.lua: who is woken, in which order, and where it is then."""

from __future__ import annotations

import pytest

from streamwork.store import scripts
from streamwork.store.limiting import sweep
from tests.faults.limited import begun
from tests.faults.proof import must_fail
from tests.helpers import state_of, wait_until
from tests.redis.flowkit import RECORD, c, g, k, t
from tests.redis.kit import LANE, bell, end, signals

HOUR = 3_600_000_000


def end_one(flow):
    (delivery,) = flow.read(count=1)
    flow.end(delivery)
    return delivery.task_id


def serve(flow, count=1000):
    """End one after the other, as long as somebody is on the lane; returns who it was, in order."""
    served = []
    while len(served) < count and (flow.on_lane() or (flow.promote().moved and flow.on_lane())):
        served.append(end_one(flow))
    return served


def groups(flow, window=1):
    flow.run("HSET", flow.keys.flow_state, "*", window)


def asked(flow):
    flow.send(c(), count=4)
    end_one(flow)
    assert len(flow.on_lane()) == 1, "more are woken than there is room for"


def first_of_its_line(flow):
    ids, _ = flow.send(c(), count=2)
    end_one(flow)
    assert flow.on_lane() == ids[1:], "nobody is woken"


def lacking_more(flow):
    flow.send(c("c:a"))
    flow.send(c("c:b"))
    flow.send(c("c:a"), c("c:b"))
    behind, _ = flow.send(c("c:a"))
    one, _ = flow.read()
    flow.end(one)
    assert flow.holders("c:a") == behind, "one that lacks something else holds up those behind it"


def lacking_more_of_a_key(flow):
    """It has its turn, and waits for another limit; then that has room."""
    flow.send(k())
    flow.send(c())
    ids, _ = flow.send(k(), c())
    one, two = flow.read()
    flow.end(one)
    assert flow.line("c:x") == ids
    flow.end(two)
    assert flow.on_lane() == ids, "it waits for itself"


def garbage(flow):
    ids, _ = flow.send(c(), count=2)
    flow.run("ZADD", flow.keys.parked, 0, b"c:x\0" + b"0" * 32 + b"\0ghost")
    flow.run("HSET", flow.keys.parked_body, "ghost", "garbage")
    end_one(flow)
    assert flow.on_lane() == ids[1:], "what is no message holds up those behind it"


def very_many(flow):
    flow.send(c())
    flow.send(c("c:y"))
    flow.send(c(), c("c:y"), count=14)
    last, _ = flow.send(c())
    end_one(flow)
    wait_until(lambda: flow.promote() and flow.holders("c:x") == last, "those behind the first few are forgotten", 2)


def too_early(flow):
    """The line is looked at before its next token is there, as after a step of the clock."""
    flow.end(begun(flow, t(HOUR)))
    flow.send(t(HOUR))
    flow.run("ZADD", flow.keys.wake, 1, "t:x")
    flow.promote()
    assert flow.promote().next_at_ms is not None, "nobody looks when the next token is there"


def weighed(flow):
    groups(flow)
    flow.send(g("g:first"))
    a, _ = flow.send(g("g:a", 3.0), count=12)
    b, _ = flow.send(g("g:b", 1.0), count=12)
    served = serve(flow, 17)[1:]
    assert len([i for i in served if i in a]) >= 10, "turns do not go by weight"
    assert [i for i in served if i in b]


def in_turns(flow):
    groups(flow)
    flow.send(g("g:a"), count=12)
    b, _ = flow.send(g("g:b"))
    assert b[0] in serve(flow, 5), "one group takes all turns"


def away_for_long(flow):
    groups(flow)
    a, _ = flow.send(g("g:a"), count=30)
    serve(flow, 15)
    flow.send(g("g:late"), count=12)
    assert [i for i in serve(flow, 8) if i in a][1:], "a group that was away takes all turns"


def nobody_waits(flow):
    groups(flow)
    flow.send(g(), count=3)
    serve(flow)
    assert flow.run("EXISTS", flow.keys.turns) == 0, "what is known of turns is kept for ever"


def woken_and_swept(flow):
    ids, _ = flow.send(c(), count=2)
    end_one(flow)
    assert flow.on_lane() == ids[1:]
    assert flow.driver.run(sweep(flow.keys, "flow", ids[1:])) == 0, "who was woken is taken for lost"


def retried_and_woken(flow):
    """It was on its lane once before, and settled there; then it waited."""
    (first,), (entry,) = flow.send(c())
    flow.send(c())
    (delivery,) = flow.read()
    flow.end(delivery, "R")
    flow.promote()
    assert flow.line("c:x") == [first]
    end_one(flow)
    assert flow.on_lane() == [first]
    where = {"lane": LANE, "entry": entry}
    answer = flow.driver.run(scripts.cancel(flow.keys, first, "me", RECORD, 60_000, "me", **where))
    assert answer == "requested", "it waits, and is said to have ended"


def woken_where_nobody_reads(flow):
    """The lane was lost while the last message on another one ended, in the same chunk."""
    flow.send(c())
    flow.send(c("c:y"), lane="3:")
    (one,) = flow.read()
    (waits,), _ = flow.send(c(), lane="3:")
    (two,) = flow.read(lane="3:")
    flow.run("DEL", flow.keys.lane("3:"))
    flow.driver.run(scripts.settle(flow.keys, "w1", [end(flow.keys, delivery) for delivery in (two, one)]))
    assert flow.due() == [waits], "it is on a lane that nobody reads"


def woken_and_counted(flow):
    flow.send(c(), count=2)
    end_one(flow)
    assert state_of(flow.driver, flow.keys).undelivered == 1, "the backlog is wrong"


def woken_and_rung(flow):
    flow.send(c(), count=2)
    flow.run("DEL", flow.keys.bell(LANE))
    end_one(flow)
    assert bell(flow.driver, flow.keys) == 1, "idle workers sleep on"


def woken_elsewhere(flow):
    flow.send(c())
    flow.send(c(), lane="3:")
    flow.run("DEL", flow.keys.control)
    end_one(flow)
    assert [name for name, _ in signals(flow.driver, flow.keys)] == ["due"], "it is due, and the promoter sleeps"


SCENARIOS = {
    "flow_woken_asks": (asked, "more are woken"),
    "flow_woken_from_its_line": (first_of_its_line, "nobody is woken"),
    "flow_woken_moves_on": (lacking_more, "holds up those behind it"),
    "flow_woken_keeps_turn": (lacking_more_of_a_key, "waits for itself"),
    "flow_woken_past_garbage": (garbage, "holds up those behind it"),
    "flow_woken_further": (very_many, "are forgotten"),
    "flow_woken_again": (too_early, "nobody looks"),
    "flow_weights": (weighed, "by weight"),
    "flow_turns": (in_turns, "takes all turns"),
    "flow_no_saved_turns": (away_for_long, "takes all turns"),
    "flow_turns_forgotten": (nobody_waits, "is kept for ever"),
    "flow_put_placed": (woken_and_swept, "taken for lost"),
    "flow_put_moved": (retried_and_woken, "said to have ended"),
    "flow_put_where_read": (woken_where_nobody_reads, "nobody reads"),
    "flow_put_counted": (woken_and_counted, "the backlog is wrong"),
    "flow_put_rung": (woken_and_rung, "sleep on"),
    "flow_put_told": (woken_elsewhere, "the promoter sleeps"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_next_one_is_woken_in_its_turn(own_flow, name):
    SCENARIOS[name][0](own_flow)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_of_a_wake_it_is_not(own_flow, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own_flow)
