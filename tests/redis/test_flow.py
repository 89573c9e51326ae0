"""flow.lua: permits from the lane to the end, and who is woken, in which order and how far (rules 1, 28, I1)."""

from __future__ import annotations

import pytest

from streamwork.ids import task_id_at_ms
from streamwork.store import healing, scripts
from streamwork.store.limiting import sweep
from tests.helpers import wait_until
from tests.redis.flowkit import Flow, c, g, k
from tests.redis.kit import LANE, bell, full, signals

HOUR = 3_600_000_000
ALL = (c(), k(), g(most=1))
NAMES = ("k:x", "c:x", "g:x")


def held(flow):
    return [flow.holders(name) for name in NAMES]


def test_permits_are_kept_while_it_is_given_back_and_adopted(flow):
    ids, _ = flow.send(*ALL)
    (delivery,) = flow.read()
    assert flow.release(delivery) == 1
    assert held(flow) == [ids] * 3
    adopted = flow.driver.run(scripts.adopt(flow.keys, LANE, "w1", 1))
    assert len(adopted) == 1
    delivery = flow.adopt(delivery._replace(count=adopted[0].delivered))
    assert held(flow) == [ids] * 3
    flow.send(*ALL)
    assert len(flow.parked()) == 1
    flow.end(delivery)
    assert held(flow) == [flow.ids[1:]] * 3


def test_permits_are_kept_when_its_entry_is_trimmed_under_its_owner(flow):
    ids, _ = flow.send(*ALL)
    _others, _ = flow.send(c("c:y", 9), count=9)
    first, *rest = flow.read()
    for delivery in rest:
        flow.end(delivery)
    few = healing.Bounds(entries=5)
    flow.driver.run(healing.maintain(flow.keys, LANE, "99999999999999", 10_000, 7, few))
    assert flow.release(first) == 1
    assert (flow.due(), held(flow)) == (ids, [ids] * 3)
    waiting, _ = flow.send(*ALL)
    assert flow.promote().moved == 1
    assert (flow.on_lane(), flow.parked(), held(flow)) == (ids, waiting, [ids] * 3)


def test_a_retry_gives_back_all_but_its_turn_in_a_strict_order(flow):
    (first,), _ = flow.send(*ALL)
    behind, _ = flow.send(k())
    others = [flow.send(limit)[0][0] for limit in ALL[1:]][1:] + flow.send(c())[0]
    (delivery,) = flow.read()
    flow.end(delivery, "R", run_at=4_000_000_000_000)
    assert held(flow) == [[first], others[1:], others[:1]]
    assert flow.line("k:x") == [*behind, flow.ids[2]]
    assert flow.due() == [first]


def test_a_retry_that_finds_no_room_waits_and_keeps_its_turn(flow):
    (first,), _ = flow.send(k(), c())
    second, _ = flow.send(c())
    behind, _ = flow.send(k())
    (delivery,) = flow.read()
    flow.end(delivery, "R")
    flow.promote()
    assert (flow.line("c:x"), flow.line("k:x"), flow.holders("k:x")) == ([first], behind, [first])
    (delivery,) = flow.read()
    assert delivery.task_id == second[0]
    flow.end(delivery)
    assert flow.on_lane() == [first]
    assert flow.run("XRANGE", flow.keys.lane(LANE), "-", "+")[-1][1][:2] == [b"a", b"2,0,0,1,0"]
    (delivery,) = flow.read()
    flow.end(delivery)
    assert flow.on_lane() == behind


@pytest.mark.parametrize("op", "SKCED")
@pytest.mark.parametrize("limit", ALL, ids=lambda limit: limit[0])
def test_every_end_frees_and_wakes_the_next(flow, op, limit):
    ids, _ = flow.send(limit, count=3)
    flow.run("DEL", flow.keys.bell(LANE))
    for task_id in ids:
        assert flow.holders(limit[1]) == [task_id]
        (delivery,) = flow.read()
        assert delivery.task_id == task_id
        flow.end(delivery, op)
        assert bell(flow.driver, flow.keys) == 1  # rung by the first one woken
    assert flow.rest() == {}


def test_those_woken_come_by_level_and_then_by_arrival(flow):
    flow.send(c())
    lanes = ("1:", "0:", "3:", "1:", "3:")
    ids = [flow.send(c(), lane=lane)[0][0] for lane in lanes]
    order = []
    every = ("3:", "1:", "0:")

    def read():
        for lane in every:
            if flow.run("EXISTS", flow.keys.lane(lane)) and (found := flow.read(lane=lane)):
                return found
        return []

    while found := read() or (flow.promote(every) and read()):
        (delivery,) = found
        order.append(delivery.task_id)
        flow.end(delivery)
    assert order[1:] == [ids[2], ids[4], ids[0], ids[3], ids[1]]


def test_a_strict_order_holds_through_retries_and_levels(flow):
    lanes = ("0:", "3:", "1:")
    ids = [flow.send(k(), lane=lane)[0][0] for lane in lanes]
    order = []
    for _ in range(6):
        flow.promote(lanes)
        (delivery,) = [d for lane in lanes if flow.run("EXISTS", flow.keys.lane(lane)) for d in flow.read(lane=lane)]
        flow.end(delivery, "S" if delivery.task_id in order else "R")
        order.append(delivery.task_id)
    assert order == [task_id for task_id in ids for _ in range(2)]
    assert flow.rest() == {}


def test_one_whose_lane_is_not_among_those_of_the_chunk_goes_through_due_now(flow):
    flow.send(c())
    (other,), _ = flow.send(c(), lane="3:")
    (delivery,) = flow.read()
    flow.end(delivery)
    assert (flow.due(), flow.holders("c:x"), flow.parked()) == ([other], [other], [])
    assert signals(flow.driver, flow.keys)[-1][0] == "due"
    assert flow.promote(("3:",)).moved == 1
    assert flow.on_lane("3:") == [other]
    (delivery,) = flow.read(lane="3:")
    flow.end(delivery)
    assert flow.rest() == {}


def test_one_whose_lane_is_gone_goes_through_due_and_its_lane_is_made_again(flow):
    ids, _ = flow.send(c(), count=2)
    (delivery,) = flow.read()
    flow.send(c("c:y"), lane="3:")
    flow.cancel(ids[1])
    (waits,), _ = flow.send(c(), lane="3:")
    flow.run("DEL", flow.keys.lane("3:"))
    flow.end(delivery)
    assert flow.due() == [waits]
    assert flow.promote((LANE, "3:")).moved == 1
    assert flow.on_lane("3:") == [waits]


def test_a_woken_one_that_lacks_another_limit_moves_to_that_line_and_the_next_one_comes(flow):
    flow.send(c("c:a"))
    flow.send(c("c:b"))
    both, _ = flow.send(c("c:a"), c("c:b"))
    only, _ = flow.send(c("c:a"))
    assert flow.line("c:a") == both + only
    one, two = flow.read()
    flow.end(one)
    assert (flow.line("c:a"), flow.line("c:b"), flow.holders("c:a")) == ([], both, only)
    assert flow.holders("c:b") == [two.task_id]
    (one,) = flow.read()
    flow.end(two)
    assert (flow.line("c:a"), flow.holders("c:b")) == (both, [])
    flow.end(one)
    assert (flow.holders("c:a"), flow.holders("c:b")) == (both, both)


def test_one_whose_record_was_removed_by_hand_runs_all_the_same(flow):
    flow.send(c())
    (second, third), _ = flow.send(c(), count=2)
    flow.run("HDEL", flow.keys.flow, second)
    (one,) = flow.read(count=1)
    flow.end(one)
    assert flow.on_lane() == [second, third]  # it has no permit, so it takes none from the next one
    for one in flow.read():
        flow.end(one)
    flow.driver.run(sweep(flow.keys, "counts", [2_000]))  # of which group it was is not known, either
    assert flow.rest() == {}


def test_one_that_moves_on_keeps_its_arrival_in_the_line_of_its_group(flow):
    flow.send(c("c:a"))
    flow.send(g("g:b", most=1))
    early, _ = flow.send(c("c:a"), g("g:b", most=1))
    late, _ = flow.send(g("g:b", most=1))
    one, _ = flow.read()
    flow.end(one)
    assert flow.line("g:b") == early + late


def test_a_bounded_number_is_woken_at_once_and_the_promoter_goes_on(flow):
    flow.send(c(most=1))
    flow.send(c("c:y"))
    movers, _ = flow.send(c(), c("c:y"), count=14)
    last, _ = flow.send(c())
    one, _ = flow.read()
    flow.end(one)
    assert (len(flow.line("c:x")), len(flow.line("c:y"))) == (5, 10)
    assert flow.run("ZSCORE", flow.keys.wake, "c:x")
    told, at_ms = signals(flow.driver, flow.keys)[-1]
    assert (told, int(at_ms) > task_id_at_ms(last[0])) == ("due", True)
    wait_until(lambda: flow.promote() and not flow.line("c:x"), "those behind the first few go on")
    assert (flow.line("c:y"), flow.holders("c:x")) == (movers, last)
    assert flow.run("EXISTS", flow.keys.wake) == 0


def test_what_is_due_asks_when_it_is_promoted(flow):
    (first, second), _ = flow.send(c(), when="+0", count=2)
    assert flow.holders("c:x") == []
    flow.promote()
    assert (flow.on_lane(), flow.line("c:x"), flow.due()) == ([first], [second], [])
    (delivery,) = flow.read()
    flow.end(delivery)
    assert flow.on_lane() == [second]
    assert bell(flow.driver, flow.keys) == 1


def test_who_ends_late_frees_nothing_of_the_one_who_has_it_now(flow):
    ids, _ = flow.send(c(), count=2)
    (zombie,) = flow.read()
    flow.adopt(zombie)
    assert flow.driver.run(scripts.release(flow.keys, LANE, "w1", [(zombie.entry, 1)])) == 0
    assert (flow.holders("c:x"), flow.line("c:x")) == (ids[:1], ids[1:])


def test_a_line_of_what_is_not_ours_is_passed_over(flow):
    ids, _ = flow.send(c(), count=2)
    flow.run("ZADD", flow.keys.parked, 0, b"c:x\0" + b"0" * 32 + b"\0ghost")
    flow.run("HSET", flow.keys.parked_body, "ghost", "garbage")
    (delivery,) = flow.read()
    flow.end(delivery)
    assert flow.on_lane() == ids[1:]


def test_settling_wakes_when_redis_is_full(own, own_keys):
    flow = Flow(own, own_keys)
    ids, _ = flow.send(*ALL, count=3)
    (delivery,) = flow.read()
    with full(own):
        flow.end(delivery, "R", run_at=1)
        assert flow.promote().moved == 1
    assert len(flow.on_lane()) == 1
    assert sorted(flow.on_lane() + flow.parked()) == sorted(ids)
    with full(own):
        for delivery in flow.read():
            flow.end(delivery)
        assert len(flow.on_lane()) == 1
