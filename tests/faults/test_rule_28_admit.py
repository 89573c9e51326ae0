"""Rule 28, flow.lua: who is let in, and how who is not waits."""

from __future__ import annotations

import pytest

from streamwork.model.pausing import mark_of
from streamwork.store.pausing import pause
from tests.faults.limited import begun, tried
from tests.faults.proof import must_fail
from tests.helpers import wait_until
from tests.redis.flowkit import PAST, c, g, k, t, w
from tests.redis.kit import LANE, dump, signals

HOUR = 3_600_000_000


def let_in(flow, *limits, count, most):
    flow.send(*limits, count=count)
    assert len(flow.on_lane()) == most, "more are let in than there is room for"


def adopted(flow):
    flow.send(c(), t(HOUR))
    (delivery,) = flow.read()
    assert flow.begin(flow.adopt(delivery)) == [1], "what has its permits waits for them"


def asked_twice(flow):
    """It crashed before it began, and the other limits are asked again."""
    flow.send(c(most=2), t(HOUR))
    (delivery,) = flow.read()
    again = flow.adopt(delivery)
    assert flow.begin(again) == [1]
    flow.end(again)
    ids, _ = flow.send(c(most=2), count=2)
    assert flow.on_lane() == ids, "a place is counted that nobody has"


def given_back_before(flow):
    """It waits for its retry, another one has its place, and it is cancelled."""
    (first, second), _ = flow.send(c(), count=2)
    (delivery,) = flow.read()
    flow.end(delivery, "R", run_at=4_000_000_000_000)
    assert flow.on_lane() == [second]
    assert flow.cancel(first) == "cancelled"
    let_in(flow, c(), count=1, most=1)


def at_once(flow):
    let_in(flow, c(most=2), count=5, most=2)


def of_a_key(flow):
    let_in(flow, k(), count=3, most=1)


def group_at_once(flow):
    let_in(flow, g(most=1), count=3, most=1)


def reserved_tokens(flow):
    let_in(flow, t(HOUR, 2), count=5, most=2)


def reserved_starts(flow):
    let_in(flow, w(2, HOUR), count=5, most=2)


def idle_for_long(flow):
    """The bucket was looked at in 1970."""
    flow.run("HSET", flow.keys.rates, "t:x", "1.0 1 1")
    let_in(flow, t(HOUR, 2), count=5, most=2)


def counted_starts(flow):
    flow.end(begun(flow, w(1, HOUR)))
    let_in(flow, w(1, HOUR), count=1, most=0)


def window_of_places(flow):
    flow.run("HSET", flow.keys.flow_state, "*", 2)
    let_in(flow, g(), count=5, most=2)


def overtaking(flow):
    """A later version of the task has a larger limit."""
    flow.send(c(most=2), count=2)
    old, _ = flow.send(c(most=2))
    new, _ = flow.send(c(most=3))
    assert flow.line("c:x") == old + new, "it has passed one that waits"


def half_let_in(flow):
    flow.send(c("c:full"))
    flow.send(c(), c("c:full"))
    ids, _ = flow.send(c())
    assert flow.on_lane()[1:] == ids, "who waits holds a permit of another limit"


def turn_kept(flow):
    flow.send(c())
    first, _ = flow.send(k(), c())
    second, _ = flow.send(k())
    assert flow.line("k:x") == second, "the next one of its key passes it"
    assert flow.line("c:x") == first


def clock_set_back(flow):
    """An hour ago it was an hour later."""
    ahead = flow.driver.server_ms() * 1000 + HOUR
    flow.run("HSET", flow.keys.rates, "t:x", f"0.000000 {ahead} {ahead}")
    ids, _ = flow.send(t(1000))

    def let_in():
        flow.promote()
        return flow.on_lane() == ids

    wait_until(let_in, "the tokens of a clock that was set back", 2)


def window_set_back(flow):
    flow.send(w(1, HOUR, "w:long"))  # the key lives
    ahead = flow.driver.server_ms() * 1000 + HOUR
    flow.run("ZADD", flow.keys.starts, 0, b"w:x\0%016d\0%b" % (ahead, b"f" * 32))
    ids, _ = flow.send(w(1, 1000))
    assert flow.on_lane()[1:] == ids, "a start of the future lets nobody in"


def paused_group(flow):
    flow.driver.run(pause(flow.keys, mark_of(None, "x"), b"{}"))
    ids, _ = flow.send(g())
    assert flow.line("g:x") == ids, "a paused group is let in"


def moving_window(flow):
    flow.end(begun(flow, w(1, HOUR, "w:long")))  # the key outlives the short one's span
    flow.end(begun(flow, w(1, 10_000)))
    start = max(int(row.split(b"\0")[1]) for row in flow.run("ZRANGE", flow.keys.starts, 0, -1))
    wait_until(lambda: flow.driver.server_ms() * 1000 > start + 12_000, "the span to be over")
    ids, _ = flow.send(w(1, 10_000))
    assert flow.on_lane() == ids, "a window never moves on"


def spoiled(flow):
    flow.run("SET", flow.keys.parked_body, "foreign")
    before = dump(flow.driver, "own")
    tried(lambda: flow.chunk([flow.limited(c()), flow.limited(c())]))
    assert dump(flow.driver, "own") == before, "a part of a chunk that was refused is there"


def levels(flow):
    flow.send(c())
    low, _ = flow.send(c(), lane="0:")
    high, _ = flow.send(c(), lane="3:")
    assert flow.line("c:x") == high + low, "the lower level goes first"


def strict(flow):
    flow.send(k())
    ids = [flow.send(k(), lane=lane)[0][0] for lane in ("0:", "3:", "1:")]
    assert flow.line("k:x") == ids, "a later one of the same key goes first"


def arrivals(flow):
    flow.send(c("c:a"))
    flow.send(g("g:b", most=1))
    early, _ = flow.send(c("c:a"), g("g:b", most=1))
    late, _ = flow.send(g("g:b", most=1))
    one, _ = flow.read()
    flow.end(one)
    assert flow.line("g:b") == early + late, "who came later is first now"


def levels_in_turn(flow):
    flow.run("HSET", flow.keys.flow_state, "*", 1)
    flow.send(g())
    low, _ = flow.send(g(), lane="0:")
    flow.send(g(), count=5, lane="3:")
    assert flow.line("*").index(low[0]) <= 1, "the lower level never has its turn"


def next_token(flow):
    flow.send(t(HOUR), count=2)
    (delivery,) = flow.read()
    flow.begin(delivery)
    assert flow.promote().next_at_ms is not None, "nobody looks when a token is there"


def next_token_told(flow):
    flow.send(t(HOUR), count=2)
    (delivery,) = flow.read()
    flow.begin(delivery)
    assert [name for name, _ in signals(flow.driver, flow.keys)][-1] == "due", "the promoter sleeps past a token"


def after_the_tokens(flow):
    flow.end(begun(flow, t(HOUR)))
    flow.send(t(HOUR))
    assert flow.promote().next_at_ms is not None, "nobody looks when a token is there"


def stale_line(flow):
    """It runs, and a record of its line was left by something that we do not know."""
    ids, _ = flow.send(c())
    flow.run("HSET", flow.keys.parked_body, ids[0], b"c:x\n" + b"4" * 32 + b"\n1:\n" + PAST + b"\nbody")
    assert flow.cancel(ids[0]) == "requested", "cancelled, and it runs"


def left_line(flow):
    ids, _ = flow.send(c(), count=2)
    (delivery,) = flow.read()
    flow.end(delivery)
    assert flow.on_lane(LANE) == ids[1:]
    assert flow.parked() == [], "it waits in a line and is on its lane"


def cancelled_line(flow):
    ids, _ = flow.send(c(), count=2)
    assert flow.cancel(ids[1]) == "cancelled"
    assert flow.parked() == [], "it was cancelled and waits"


SCENARIOS = {
    "flow_own_permit": (adopted, "waits for them"),
    "flow_taken_once": (asked_twice, "that nobody has"),
    "flow_given_back_once": (given_back_before, "more are let in"),
    "flow_cancelled_whole": (cancelled_line, "cancelled and waits"),
    "flow_at_once": (at_once, "more are let in"),
    "flow_one_of_a_key": (of_a_key, "more are let in"),
    "flow_no_overtaking": (overtaking, "has passed one"),
    "flow_all_or_none": (half_let_in, "of another limit"),
    "flow_turn_kept": (turn_kept, "passes it"),
    "flow_tokens_of_the_future": (clock_set_back, "that was set back"),
    "flow_starts_of_the_future": (window_set_back, "of the future"),
    "flow_window": (window_of_places, "more are let in"),
    "flow_paused_group": (paused_group, "is let in"),
    "flow_group_at_once": (group_at_once, "more are let in"),
    "flow_tokens_reserved": (reserved_tokens, "more are let in"),
    "flow_burst": (idle_for_long, "more are let in"),
    "flow_starts_counted": (counted_starts, "more are let in"),
    "flow_starts_reserved": (reserved_starts, "more are let in"),
    "flow_window_moves": (moving_window, "never moves on"),
    "flow_types_first": (spoiled, "a part of a chunk"),
    "flow_levels": (levels, "the lower level"),
    "flow_strict_order": (strict, "of the same key"),
    "flow_arrival_kept": (arrivals, "is first now"),
    "flow_levels_in_turn": (levels_in_turn, "never has its turn"),
    "flow_time_noted": (next_token, "nobody looks"),
    "flow_time_told": (next_token_told, "sleeps past a token"),
    "flow_parked_for_time": (after_the_tokens, "nobody looks"),
    "flow_leaves_once": (stale_line, "and it runs"),
    "flow_leaves_whole": (left_line, "in a line and is on its lane"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_who_has_room_is_let_in_and_the_others_wait_in_order(own_flow, name):
    SCENARIOS[name][0](own_flow)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_of_a_room_they_do_not(own_flow, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own_flow)
