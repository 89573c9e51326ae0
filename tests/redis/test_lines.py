"""Groups: their window, turns by weight, a limit of a group's own, and a group that is paused (flow.lua)."""

from __future__ import annotations

import pytest

from streamwork.model.flow import group_line
from streamwork.model.pausing import mark_of
from streamwork.store.commands import plain
from streamwork.store.pausing import pause
from tests.helpers import wait_until
from tests.redis.flowkit import Flow, c, g, k, t, w
from tests.redis.kit import full, signals


@pytest.fixture
def flow(driver, keys):
    made = Flow(driver, keys)
    made.run("HSET", keys.flow_state, "*", 1)
    return made


def serve(flow, count=1000):
    """End one after the other; returns who it was, in order."""
    served = []
    while len(served) < count and (found := flow.read(count=1) or (flow.promote() and flow.read(count=1))):
        served.append(found[0].task_id)
        flow.end(found[0])
    return served


def paused(flow, name, known=b"{}"):
    return flow.driver.run(pause(flow.keys, mark_of(None, name), known))


def turns(flow, served, **groups):
    """Return the names of the groups that these belong to."""
    name_of = {task_id: name for name, ids in groups.items() for task_id in ids}
    return "".join(name_of[task_id] for task_id in served)


def test_the_first_of_another_group_is_not_behind_all_of_one(flow):
    a, _ = flow.send(g("g:a"), count=30)
    b, _ = flow.send(g("g:b"))
    served = serve(flow)
    assert sorted(served) == sorted(a + b)
    assert served.index(b[0]) <= 2
    assert [i for i in served if i in a] == a
    assert flow.rest() == {}


def test_turns_go_by_weight(flow):
    flow.send(g("g:first"))
    a, _ = flow.send(g("g:a", 3.0), count=30)
    b, _ = flow.send(g("g:b", 1.0), count=10)
    order = turns(flow, serve(flow)[1:], a=a, b=b)
    for n in range(4, 37, 4):
        assert abs(order[:n].count("b") - n / 4) <= 1, order


def test_the_queue_has_a_window_and_without_a_number_it_is_20(driver, keys):
    flow = Flow(driver, keys)
    flow.send(g("g:a"), count=30)
    assert (len(flow.on_lane()), len(flow.line("*"))) == (20, 10)
    for delivery in flow.read(count=5):
        flow.end(delivery)
    assert (len(flow.on_lane()), len(flow.line("*"))) == (20, 5)


def test_a_group_at_its_own_limit_is_passed_over_and_comes_back(flow):
    flow.run("HSET", flow.keys.flow_state, "*", 4)
    a, _ = flow.send(g("g:a", most=1), count=3)
    b, _ = flow.send(g("g:b"), count=6)
    assert flow.on_lane() == [a[0], *b[:3]]
    assert (flow.line("g:a"), flow.line("*")) == (a[1:], b[3:])
    one, two, *_ = flow.read()
    flow.end(two)
    assert flow.on_lane()[-1] == b[3]
    flow.end(one)
    assert flow.on_lane()[-1] == a[1]
    assert flow.holders("g:a") == [a[1]]
    rest = [d for d in flow.read() if d.task_id in b]
    for delivery in rest:
        flow.end(delivery)
    assert len(flow.holders("g:a")) == 1


def test_a_group_that_comes_back_has_saved_up_no_turns(flow):
    a, _ = flow.send(g("g:a"), count=40)
    serve(flow, 20)
    late, _ = flow.send(g("g:late"), count=10)
    order = turns(flow, serve(flow)[:16], a=a, l=late)
    assert 6 <= order[1:].count("l") <= 9, order


def test_what_is_known_of_turns_goes_with_the_last_one_of_a_group_in_a_line(flow):
    (first, second), _ = flow.send(g("g:a"), count=2)
    assert flow.run("HKEYS", flow.keys.turns) == [b"*\x008\0g:a"]
    assert flow.cancel(second) == "cancelled"
    assert flow.run("EXISTS", flow.keys.turns) == 0
    third, _ = flow.send(g("g:a"))
    assert flow.run("HKEYS", flow.keys.turns) == [b"*\x008\0g:a"]
    assert serve(flow) == [first, *third]


@pytest.mark.parametrize("shared", [c("c:all"), t(1000, name="t:all"), w(1, 1000, "w:all")], ids=["c", "t", "w"])
def test_groups_take_turns_for_a_limit_that_they_share(flow, shared):
    flow.run("HSET", flow.keys.flow_state, "*", 100)
    flow.send(shared)
    a, _ = flow.send(shared, g("g:a"), count=20)
    b, _ = flow.send(shared, g("g:b", 2.0), count=4)
    none, _ = flow.send(shared, count=2)
    served = []
    while len(served) < 27:
        for delivery in flow.read():
            if flow.begin(delivery) == [1]:
                served.append(delivery.task_id)
                flow.end(delivery)
        flow.promote()
    order = turns(flow, served[1:], a=a, b=b, n=none)
    assert [i for i in served if i in a] == a
    assert order[:9].count("b") == 4, order
    assert order[:8].count("n") == 2, order
    assert flow.rest() == {}


def test_what_was_cancelled_has_taken_no_turn_of_its_group(flow):
    flow.send(g("g:a"))
    gone, _ = flow.send(g("g:a"), count=50)
    flow.send(g("g:b"), count=60)
    for task_id in gone[:-1]:
        assert flow.cancel(task_id) == "cancelled"
    late, _ = flow.send(g("g:a"))
    assert flow.line("*").index(late[0]) <= 4


def test_one_place_does_not_move_a_whole_line_to_another_one_and_back(flow):
    flow.run("HSET", flow.keys.flow_state, "*", 2)
    flow.send(c(), g("g:a"))
    flow.send(c(), g("g:a"), count=200)
    flow.send(g("g:b"), count=3)
    first, _ = flow.read()
    before_ms = flow.driver.server_ms()
    flow.end(first)
    left = len(flow.line("c:x"))
    assert left >= 190
    # The next look comes after a pause, so that many who lack another limit cost Redis a share of its time at most.
    assert float(flow.run("ZSCORE", flow.keys.wake, "c:x")) >= before_ms * 1000 + 20_000
    wait_until(lambda: flow.promote() and len(flow.line("c:x")) <= left - 50, "the next fifty")


def test_a_turn_has_an_end(flow):
    flow.send(g("g:a"), count=2)
    (field,) = flow.run("HKEYS", flow.keys.turns)
    flow.run("HSET", flow.keys.turns, field, "1 999999999999999")
    ids, _ = flow.send(g("g:a"))
    assert flow.line("*")[-1:] == ids


def test_each_level_of_a_group_has_its_turns_so_that_none_waits_for_ever(flow):
    flow.send(g("g:a"))
    low, _ = flow.send(g("g:a"), count=3, lane="0:")
    high, _ = flow.send(g("g:a"), count=9, lane="3:")
    order = flow.line("*")
    assert order.index(low[0]) <= 1
    assert order.index(low[1]) <= 3
    assert order.index(high[0]) <= 1


def test_messages_with_tags_that_nobody_offers_take_no_place_of_the_others(flow):
    flow.run("HSET", flow.keys.flow_state, "*gpu", 2)
    gpu = [flow.limited(g("g:a"), window="*gpu") for _ in range(5)]
    flow.chunk(gpu, ["1:gpu"])
    (one, two), _ = flow.send(g("g:a"), count=2)
    assert (flow.on_lane("1:gpu"), flow.line("*gpu")) == ([m.task_id for m in gpu[:2]], [m.task_id for m in gpu[2:]])
    assert (flow.on_lane(), flow.line("*")) == ([one], [two])


def test_one_that_lacks_something_else_does_not_hold_up_the_other_groups(flow):
    flow.send(c("c:x"))
    blocker, *_ = flow.read()
    runs, _ = flow.send(g("g:b"))
    a, _ = flow.send(c("c:x"), g("g:a"))
    b, _ = flow.send(g("g:b"), count=2)
    assert (flow.line("c:x"), flow.line("*")) == (a, b)
    assert serve(flow) == runs + b
    flow.end(blocker)
    assert serve(flow) == a


def test_a_paused_group_gets_no_turns_and_the_others_do(flow):
    running, _ = flow.send(g("g:a"))
    a, _ = flow.send(g("g:a"), count=3)
    b, _ = flow.send(g("g:b"), count=3)
    assert paused(flow, "a")
    assert serve(flow) == running + b  # what was on a lane already goes on
    assert flow.line("g:a") == a  # each when it was first
    later, _ = flow.send(g("g:a"))
    assert flow.line("g:a") == a + later
    assert flow.on_lane() == []
    flow.send(g("g:c"))
    assert serve(flow) == flow.ids[-1:]


def test_a_group_goes_on_in_order_when_it_is_resumed_and_the_promoter_hears_of_it(flow):
    paused(flow, "a")
    a, _ = flow.send(g("g:a"), count=5)
    paused(flow, "b")
    b, _ = flow.send(g("g:b"), count=1)
    assert flow.promote() == (0, None, False)
    assert paused(flow, "a", b"")
    assert signals(flow.driver, flow.keys)[-1][0] == "due"
    assert flow.run("ZSCORE", flow.keys.wake, "g:a")
    assert serve(flow) == a
    assert flow.line("g:b") == b
    assert paused(flow, "b", b"")
    assert serve(flow) == b
    assert flow.rest() == {}


def test_a_resumption_that_changes_nothing_still_lets_go_on_what_was_forgotten(flow):
    paused(flow, "a")
    a, _ = flow.send(g("g:a"))
    flow.run("DEL", flow.keys.paused, flow.keys.turns, flow.keys.wake)
    assert not paused(flow, "a", b"")
    assert serve(flow) == a


def test_a_retry_of_a_paused_group_waits_in_its_line(flow):
    (a,), _ = flow.send(g("g:a"))
    (delivery,) = flow.read()
    paused(flow, "a")
    flow.end(delivery, "R")
    assert flow.holders("g:a") == []
    flow.promote()
    assert (flow.line("g:a"), flow.due()) == ([a], [])
    assert flow.parked() == [a]
    paused(flow, "a", b"")
    assert serve(flow) == [a]


@pytest.mark.parametrize("name", ["n" * 500, "a\0b", "a b\n", "ü:*", "queue", "task:x"])
def test_odd_names_are_paused_as_they_are_limited(flow, name):
    paused(flow, name)
    ids, _ = flow.send(g(group_line(name)))
    assert flow.line(group_line(name)) == ids
    other, _ = flow.send(g(group_line(name + "!")))
    assert serve(flow) == other
    paused(flow, name, b"")
    assert serve(flow) == ids


def test_a_mark_of_a_queue_or_a_task_is_none_of_a_group(flow):
    flow.run("HSET", flow.keys.paused, "queue", "{}", "task:a", "{}")
    ids, _ = flow.send(g("g:a"))
    assert flow.on_lane() == ids


def test_what_stands_under_paused_instead_holds_nothing_back(own, own_keys):
    flow = Flow(own, own_keys)
    own.run(plain("SET", own_keys.paused, "foreign"))
    ids, _ = flow.send(g("g:a"))
    assert flow.on_lane() == ids


def test_full_redis_resumes_a_group(own, own_keys):
    flow = Flow(own, own_keys)
    paused(flow, "a")
    ids, _ = flow.send(g("g:a"))
    with full(own):
        assert paused(flow, "a", b"")
        flow.promote()
        flow.promote()
    assert flow.on_lane() == ids


@pytest.mark.parametrize("other", [c("c:y"), t(3_600_000_000, name="t:y"), g("g:y", most=1)])
def test_a_strict_order_holds_where_the_first_lacks_another_limit(flow, other):
    """The one that waits for the other limit keeps its turn: the next of its key, which has room, stays behind."""
    flow.send(other)
    (first,), _ = flow.send(k(), other)
    (second,), _ = flow.send(k(), lane="9:")
    assert (flow.line(other[1]), flow.line("k:x")) == ([first], [second])
    assert flow.holders("k:x") == [first]
    third, _ = flow.send(k("k:z"), other)
    assert flow.holders("k:z") == third
    flow.cancel(first)
    flow.promote(("1:", "9:"))
    assert (flow.holders("k:x"), flow.line("k:x")) == ([second], [])


def test_a_strict_order_holds_for_one_that_moves_on_from_the_line_of_its_key(flow):
    flow.send(k())
    flow.send(c("c:y"))
    (first,), _ = flow.send(k(), c("c:y"))
    (second,), _ = flow.send(k())
    assert flow.line("k:x") == [first, second]
    one, _ = flow.read()
    flow.end(one)
    assert (flow.line("c:y"), flow.line("k:x"), flow.holders("k:x")) == ([first], [second], [first])
