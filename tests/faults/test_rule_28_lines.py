"""Rule 28: what is sent or promoted asks for its permits first, and waits in a line where it gets none."""

from __future__ import annotations

import pytest

from streamwork.store.limiting import sweep
from tests.faults.limited import begun, tried
from tests.faults.proof import must_fail
from tests.helpers import state_of, wait_until
from tests.redis.flowkit import c, k, t, u, w
from tests.redis.kit import LANE, dump, full

HOUR = 3_600_000_000


def many_sent(flow):
    flow.send(c(most=2), count=5)
    assert len(flow.on_lane()) == 2, "more are let in than there is room for"


def same_name(flow, policy="c"):
    flow.send(u(policy=policy), count=3)
    assert len(flow.on_lane()) == 1, "two of a kind are there"


def refused_name(flow):
    same_name(flow, "r")


def replaced_name(flow):
    (first, second), _ = flow.send(u(policy="p"), count=2)
    assert state_of(flow.driver, flow.keys).cancelled == {first: second}, "two of a kind are there"


def lost_name(flow):
    flow.run("HSET", flow.keys.unique, "u:x", "0" * 32 + " 0")
    ids, _ = flow.send(u())
    assert flow.on_lane() == ids, "nobody can be sent, and nobody is there"


def sent_again(flow):
    messages = [flow.limited(c(most=9)), flow.limited(c(most=9))]
    flow.chunk(messages, number=1)
    flow.chunk(messages, number=1)
    assert len(flow.on_lane()) == 2, "a chunk whose answer was lost is there twice"


def late_copy(flow):
    messages = [flow.limited(c(most=9)) for _ in range(2)]
    for number, message in enumerate(messages, 1):
        flow.chunk([message], number=number)
    tried(lambda: flow.chunk(messages[:1], number=1))
    assert len(flow.on_lane()) == 2, "a late copy of a chunk is there again"


def full_and_forgotten(flow):
    delivery = begun(flow, w(1, 1000))
    flow.end(delivery)
    start = int(flow.run("ZRANGE", flow.keys.starts, 0, 0)[0].split(b"\0")[1])
    wait_until(lambda: flow.driver.server_ms() * 1000 > start + 3000, "the span to be over")
    with full(flow.driver):
        assert not tried(lambda: flow.send(w(1, 1000))), "a full Redis took new work"
    assert flow.on_lane() == []


def spoiled(flow):
    flow.run("SET", flow.keys.parked_body, "foreign")
    before = dump(flow.driver, "own")
    # The first one would be in by the time that the second one finds no line to wait in.
    tried(lambda: flow.chunk([flow.limited(c()), flow.limited(c())]))
    assert dump(flow.driver, "own") == before, "a part of a chunk that was refused is there"


def many_due(flow):
    flow.send(c(), when="+0", count=3)
    flow.promote()
    assert len(flow.on_lane()) == 1, "more are let in than there is room for"


def due_and_parked(flow):
    ids, _ = flow.send(c(), when="+0", count=2)
    flow.promote()
    assert flow.parked() == ids[1:]
    assert flow.due() == [], "it is in due and in a line"


def due_with_a_key(flow):
    """It has its turn, and waits for another limit; then that has room."""
    flow.send(c())
    ids, _ = flow.send(k(), c(), when="+0")
    flow.promote()
    assert flow.line("c:x") == ids
    (delivery,) = flow.read()
    flow.end(delivery)
    assert flow.on_lane() == ids, "it waits for itself"


def promoted_and_swept(flow):
    ids, _ = flow.send(c(), when="+0")
    flow.promote()
    assert flow.on_lane() == ids
    assert flow.driver.run(sweep(flow.keys, "flow", ids)) == 0, "what is on its lane is taken for lost"


def token_due(flow):
    """Let a second message wait for a token, and return its id once time has brought that."""
    ids, _ = flow.send(t(1000), count=2)
    (delivery,) = flow.read()
    flow.begin(delivery)
    flow.end(delivery)
    return ids[1:]


def woken_by_time(flow):
    waiting = token_due(flow)
    at = float(flow.run("ZRANGE", flow.keys.wake, 0, 0, "WITHSCORES")[1])
    wait_until(lambda: flow.driver.server_ms() * 1000 > at, "its token to be there")
    flow.promote()
    assert flow.on_lane() == waiting, "who waits for a token is never woken"


def told_of_time(flow):
    flow.send(t(HOUR), count=2)
    (delivery,) = flow.read()
    flow.begin(delivery)
    assert flow.promote().next_at_ms is not None, "the promoter sleeps past a token"


def due_where_foreign(flow):
    flow.send(c(), when="+0", count=2)
    flow.run("SET", flow.keys.parked_body, "foreign")
    before = dump(flow.driver, "own")
    tried(flow.promote)
    assert dump(flow.driver, "own") == before, "it is promoted by halves"


def lane_that_takes_nothing(flow):
    """Its lane takes no further entry, ever."""
    flow.send(c(most=2), when="+0")
    flow.run("XADD", flow.keys.lane(LANE), "18446744073709551615-18446744073709551615", "d", "x")
    for _ in range(3):
        flow.promote()
    assert flow.numbers() == {"+c:x": 1}, "a place is counted that nobody has"


SCENARIOS = {
    "promote_puts_back": (lane_that_takes_nothing, "that nobody has"),
    "submit_asks": (many_sent, "more are let in"),
    "name_taken": (same_name, "two of a kind"),
    "name_refused": (refused_name, "two of a kind"),
    "name_replaced": (replaced_name, "two of a kind"),
    "name_of_the_gone": (lost_name, "nobody can be sent"),
    "limited_numbers": (sent_again, "is there twice"),
    "limited_gap": (late_copy, "is there again"),
    "limited_refused_whole": (full_and_forgotten, "took new work"),
    "limited_types_first": (spoiled, "a part of a chunk"),
    "promote_asks": (many_due, "more are let in"),
    "promote_parks_once": (due_and_parked, "in due and in a line"),
    "promote_keeps_turn": (due_with_a_key, "waits for itself"),
    "promote_places": (promoted_and_swept, "taken for lost"),
    "promote_wakes": (woken_by_time, "never woken"),
    "promote_tells_when": (told_of_time, "sleeps past a token"),
    "promote_types_first": (due_where_foreign, "by halves"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_who_comes_onto_a_lane_has_its_permits(own_flow, name):
    SCENARIOS[name][0](own_flow)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_of_a_line_it_has_not(own_flow, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own_flow)
