"""Rule 28: what begins has its permits and spends its tokens; what ends, however it does, gives them back."""

from __future__ import annotations

import pytest

from tests import leaks
from tests.faults.limited import begun, tried
from tests.faults.proof import must_fail
from tests.faults.unguarded import scripts_without
from tests.helpers import state_of, wait_until
from tests.redis.flowkit import c, g, k, t, w
from tests.redis.kit import dump, hand_over, owners

HOUR = 3_600_000_000


def sent_and_ended(flow):
    flow.send(c(), count=2)
    (delivery,) = flow.read()
    flow.end(delivery)
    assert len(flow.on_lane()) == 1, "an end gives nothing back"
    assert flow.parked() == []


def parked_and_woken(flow):
    ids, _ = flow.send(c(), count=2)
    (delivery,) = flow.read()
    flow.end(delivery)
    assert flow.holders("c:x") == ids[1:], "what it asked for is forgotten"


def lost_and_begun(flow):
    flow.send(t(HOUR))
    (delivery,) = flow.read()
    flow.adopt(delivery)
    flow.begin(delivery)
    assert flow.run("EXISTS", flow.keys.rates) == 0, "who has lost it has spent its token"


def begun_by_an_earlier(flow):
    flow.send(t(HOUR))
    (delivery,) = flow.read()
    hand_over(flow.driver, flow.keys, delivery, "w1")
    flow.begin(delivery)
    assert flow.run("EXISTS", flow.keys.rates) == 0, "an earlier delivery has spent its token"


def crashed(flow):
    delivery = begun(flow, w(1, HOUR))
    flow.begin(flow.adopt(delivery))
    assert flow.run("ZCARD", flow.keys.starts) == 1, "more have started than may in that span"


def started(flow):
    flow.end(begun(flow, w(1, 1000)))
    after_ms = flow.driver.server_ms() + 3
    wait_until(lambda: flow.driver.server_ms() > after_ms, "the span to be over")
    ids, _ = flow.send(w(1, 1000))
    assert flow.on_lane() == ids, "a start is reserved for good for who has used it"


def crashed_with_a_place(flow):
    """What crashed lacks a token now, and somebody waits for its place of another limit."""
    delivery = begun(flow, c(), w(1, HOUR))
    other, _ = flow.send(c())
    assert flow.begin(flow.adopt(delivery)) == [0]
    assert flow.holders("c:x") == other, "what waits for a token keeps a place from those who have one"


def crashed_and_aside(flow):
    delivery = begun(flow, w(1, HOUR))
    assert flow.begin(flow.adopt(delivery)) == [0]
    assert flow.parked() == [delivery.task_id]
    assert owners(flow.driver, flow.keys) == {}, "it waits in a line and is on its lane"


def crashed_and_counted(flow):
    delivery = begun(flow, w(1, HOUR))
    assert flow.begin(flow.adopt(delivery)) == [0]
    assert state_of(flow.driver, flow.keys).undelivered == 0, "it is counted twice"


def crashed_and_cancelled(flow):
    flow.send(w(1, HOUR), when="+0")
    flow.promote()
    (delivery,) = flow.read()
    assert flow.begin(delivery) == [1]
    assert flow.begin(flow.adopt(delivery)) == [0]
    assert flow.cancel(delivery.task_id) == "cancelled"
    assert flow.rest() == {}, "its place on the lane outlives it"


def every_end(flow):
    for op in "SKCED":
        ids, _ = flow.send(c(), k(), g(most=1), count=2)
        for task_id in ids:
            assert flow.on_lane() == [task_id], "an end gives nothing back"
            (delivery,) = flow.read()
            flow.end(delivery, op)
    assert flow.rest() == {}, "something is held by nobody"


def failed_in_order(flow):
    ids, _ = flow.send(k(), count=2)
    order = []
    for _ in range(4):
        flow.promote()
        for delivery in flow.read():
            flow.end(delivery, "S" if delivery.task_id in order else "R")
            order.append(delivery.task_id)
    assert order == [ids[0], ids[0], ids[1], ids[1]], "another one came between two attempts"


def ended_where_foreign(flow):
    flow.send(c(), count=2)
    (delivery,) = flow.read()
    flow.run("DEL", flow.keys.wake)
    flow.run("SET", flow.keys.permits, "foreign")
    assert tried(lambda: flow.end(delivery)), "an end is refused for what it would have freed"


def cancelled_in_line(flow):
    ids, _ = flow.send(c(), count=3)
    assert flow.cancel(ids[1]) == "cancelled"
    assert flow.parked() == flow.line("c:x") == ids[2:], "what was cancelled still waits"


def cancelled_with_a_turn(flow):
    ids, _ = flow.send(k(), count=2)
    (delivery,) = flow.read()
    flow.end(delivery, "R", run_at=4_000_000_000_000)
    assert flow.cancel(ids[0]) == "cancelled"
    flow.promote()
    assert flow.on_lane() == ids[1:], "who was cancelled keeps its turn"


def cancelled_where_foreign(flow):
    ids, _ = flow.send(k())
    (delivery,) = flow.read()
    flow.end(delivery, "R", run_at=4_000_000_000_000)
    flow.run("DEL", flow.keys.permits)
    flow.run("SET", flow.keys.permits, "foreign")
    before = dump(flow.driver, "own")
    tried(lambda: flow.cancel(ids[0]))
    assert dump(flow.driver, "own") == before, "it is cancelled by halves"


SCENARIOS = {
    "submit_places": (sent_and_ended, "gives nothing back"),
    "submit_keeps_limits": (parked_and_woken, "asked for is forgotten"),
    "begin_owner": (lost_and_begun, "who has lost it"),
    "begin_count": (begun_by_an_earlier, "an earlier delivery"),
    "begin_asks_anew": (crashed, "more have started"),
    "begin_notes": (crashed, "more have started"),
    "begin_spends": (started, "reserved for good"),
    "set_aside_frees": (crashed_with_a_place, "keeps a place from"),
    "set_aside_once": (crashed_and_aside, "in a line and is on its lane"),
    "set_aside_counted": (crashed_and_counted, "counted twice"),
    "set_aside_place": (crashed_and_cancelled, "outlives it"),
    "end_frees": (every_end, "gives nothing back"),
    "success_frees": (sent_and_ended, "gives nothing back"),
    "retry_is_no_end": (failed_in_order, "between two attempts"),
    "end_where_foreign": (ended_where_foreign, "an end is refused"),
    "cancel_leaves_the_line": (cancelled_in_line, "still waits"),
    "cancel_frees": (cancelled_with_a_turn, "keeps its turn"),
    "cancel_types_first": (cancelled_where_foreign, "by halves"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_message_holds_goes_with_it(own_flow, name):
    SCENARIOS[name][0](own_flow)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_of_a_limit_it_does_not(own_flow, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own_flow)


def test_what_is_held_for_one_that_has_ended_is_found_after_every_test(own_flow):
    with scripts_without("end_frees"):
        own_flow.send(c(), k(), g())
        (delivery,) = own_flow.read()
        own_flow.end(delivery)
        found = leaks.left_of_ended(own_flow.driver, own_flow.keys)
    assert [line for line in found if "has ended" in line]
    assert leaks.held(own_flow.driver, own_flow.keys)
