"""submit.lua: on a lane, in a line or in due, once; names of which there is one; all or nothing (rules 1, 3, 4, 28)."""

from __future__ import annotations

import pytest

from streamwork.errors import StoreError, StoreFull
from tests.helpers import state_of, wait_until
from tests.redis.flowkit import c, g, k, t, u, w
from tests.redis.kit import LANE, bell, dump, full, signals

EVERYTHING = (c(), k(), g(), t(1_000_000), w(1, 1_000_000), u())


def test_one_with_room_is_on_its_lane_and_holds_all_that_it_asked_for(flow):
    (task_id,), (entry,) = flow.send(*EVERYTHING)
    assert flow.on_lane() == [task_id]
    assert [flow.holders(name) for name in ("c:x", "k:x", "g:x", "t:x", "w:x", "*")] == [[task_id]] * 6
    assert flow.run("HGET", flow.keys.flow, task_id).startswith(f"{LANE}/{entry}\n".encode())
    state = state_of(flow.driver, flow.keys)
    assert (state.added, bell(flow.driver, flow.keys), flow.owner()) == ({LANE: 1}, 1, task_id)


@pytest.mark.parametrize("lacking", EVERYTHING[:-1], ids=lambda limit: limit[0])
def test_without_room_for_one_nothing_is_taken_but_its_turn(flow, lacking):
    if lacking[0] == "g":
        lacking = g(most=1)
    flow.send(lacking)
    (task_id,), (answer,) = flow.send(c("c:other"), lacking, *([k("k:other")] if lacking[0] != "k" else []))
    assert (answer, flow.line(lacking[1]), flow.parked()) == ("", [task_id], [task_id])
    turn = [] if lacking[0] == "k" else [task_id]
    assert (flow.holders("c:other"), flow.holders("k:other")) == ([], turn)
    assert len(flow.on_lane()) == 1
    assert state_of(flow.driver, flow.keys).added == {LANE: 1}


def test_nobody_passes_those_who_wait_already(flow):
    flow.send(c())
    (first,), _ = flow.send(c(), t(1_000_000_000, name="t:y"))
    flow.run("HDEL", flow.keys.permits, "+c:x")  # room, and nobody has been woken yet
    (second,), _ = flow.send(c())
    assert flow.line("c:x") == [first, second]


def test_several_in_one_chunk_count_among_themselves(flow):
    messages = [flow.limited(c(most=2)) for _ in range(5)]
    answers = flow.chunk(messages)
    assert [bool(answer) for answer in answers] == [True, True, False, False, False]
    assert flow.line("c:x") == [message.task_id for message in messages[2:]]


def test_higher_levels_go_first_and_within_one_the_order_of_arrival(flow):
    flow.send(c())
    low, _ = flow.send(c(), count=2, lane="0:")
    high, _ = flow.send(c(), count=2, lane="3:")
    mid, _ = flow.send(c(), count=2)
    assert flow.line("c:x") == high + mid + low


def test_strict_order_knows_no_levels(flow):
    flow.send(k())
    waiting = [flow.send(k(), lane=lane)[0][0] for lane in ("0:", "3:", "1:")]
    assert flow.line("k:x") == waiting


def test_what_is_for_later_is_in_due_and_holds_nothing_but_its_name(flow):
    (task_id,), (answer,) = flow.send(c(), u(), when="+5000000")
    assert (answer, flow.due(), flow.holders("c:x"), flow.owner()) == ("", [task_id], [], task_id)
    assert signals(flow.driver, flow.keys)[-1][0] == "due"


def test_a_chunk_that_is_sent_again_is_answered_the_same_and_changes_nothing(flow):
    messages = [flow.limited(c(), u()), flow.limited(c(), u()), flow.limited(c()), flow.limited(u("u:y", "p"))]
    messages += [flow.limited(u("u:y", "p")), flow.limited(u("u:y", "r"))]
    answers = flow.chunk(messages)
    assert answers[1] == "=" + messages[0].task_id
    assert answers[2] == ""
    assert answers[4].partition("~")[2] == messages[3].task_id
    assert answers[5] == "!" + messages[4].task_id
    before = dump(flow.driver, flow.keys.namespace)
    assert flow.chunk(messages, number=1) == answers
    assert dump(flow.driver, flow.keys.namespace) == before


def test_a_gap_between_chunks_is_refused_before_anything_is_written(flow):
    flow.send(c())
    before = dump(flow.driver, flow.keys.namespace)
    with pytest.raises(StoreError, match="ENQUEUE-GAP chunk 3 after 1"):
        flow.chunk([flow.limited(c())], number=3)
    assert dump(flow.driver, flow.keys.namespace) == before


def test_those_in_line_count_for_the_bound_of_the_backlog(flow):
    flow.send(c(), count=3)
    with pytest.raises(StoreError, match="max_backlog"):
        flow.chunk([flow.limited(c())], most=3)
    flow.number -= 1
    flow.chunk([flow.limited(c())], most=4)


TYPED = [
    "lanes",
    "cancelled",
    "due",
    "due_body",
    "moved",
    "flow",
    "permits",
    "parked",
    "parked_body",
    "turns",
    "rates",
    "starts",
    "wake",
    "flow_state",
    "unique",
    "lane",
]


@pytest.mark.parametrize("spoiled", TYPED)
def test_another_type_under_a_key_is_refused_before_anything_is_written(own_flow, spoiled):
    keys = own_flow.keys
    own_flow.send(*EVERYTHING)
    key = keys.lane(LANE) if spoiled == "lane" else getattr(keys, spoiled)
    own_flow.run("DEL", key)
    own_flow.run("SET", key, "foreign")
    before = dump(own_flow.driver, "own")
    for limits in (EVERYTHING, (c("c:new"), u("u:new", "p"))):
        for when in ("", "+1"):
            with pytest.raises(StoreError):
                own_flow.chunk([own_flow.limited(*limits, when=when)], number=2)
            assert dump(own_flow.driver, "own") == before


@pytest.mark.parametrize("spoiled", ["control", "added", "bell", "paused"])
def test_another_type_where_it_is_only_told_makes_no_error_of_what_is_in(own_flow, spoiled):
    key = own_flow.keys.bell(LANE) if spoiled == "bell" else getattr(own_flow.keys, spoiled)
    own_flow.run("SET", key, "foreign")
    ids, _ = own_flow.send(c(), g(), u(policy="p"), count=2)
    assert (own_flow.on_lane(), own_flow.parked()) == (ids[:1], ids[1:])


@pytest.mark.parametrize("when", ["", "+1000"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_full_redis_refuses_the_whole_chunk(own_flow, is_first, when):
    if not is_first:
        own_flow.send(*EVERYTHING)
    before = dump(own_flow.driver, "own")
    with full(own_flow.driver):
        for limits in (EVERYTHING, (c("c:new"),), (u("u:x", "p"),)):
            with pytest.raises(StoreFull):
                own_flow.chunk([own_flow.limited(*limits, when=when)] * 2, number=1 if is_first else 2)
    assert dump(own_flow.driver, "own") == before


def test_a_full_redis_refuses_also_what_a_window_forgets_first(own_flow):
    own_flow.send(w(1, 1000))
    (delivery,) = own_flow.read()
    assert own_flow.begin(delivery) == [1]
    own_flow.end(delivery)
    start = own_flow.run("ZRANGE", own_flow.keys.starts, 0, 0)[0].split(b"\0")[1]
    wait_until(lambda: own_flow.driver.server_ms() * 1000 > int(start) + 3000, "the span to be over")
    with full(own_flow.driver), pytest.raises(StoreFull):
        own_flow.send(w(1, 1000))
    assert (own_flow.on_lane(), own_flow.parked(), own_flow.run("EXISTS", own_flow.keys.permits)) == ([], [], 0)


def test_a_name_answers_with_the_one_there_is(flow):
    (first,), _ = flow.send(u())
    (second,), (answer,) = flow.send(c(), u())
    assert (answer, flow.on_lane(), flow.holders("c:x")) == ("=" + first, [first], [])
    assert flow.run("HEXISTS", flow.keys.flow, second) == 0


def test_a_name_refuses(flow):
    (first,), _ = flow.send(u(policy="r"))
    _, (answer,) = flow.send(u(policy="r"))
    assert (answer, flow.on_lane()) == ("!" + first, [first])


@pytest.mark.parametrize("where", ["lane", "line", "due"])
def test_one_in_its_place_marks_the_other_and_has_the_name(flow, where):
    flow.send(c())
    limits = (c(), u(policy="p")) if where == "line" else (u(policy="p"),)
    (first,), _ = flow.send(*limits, when="+5000000" if where == "due" else "")
    (second,), (answer,) = flow.send(u(policy="p"))
    assert answer.partition("~")[2] == first
    assert flow.owner() == second
    assert state_of(flow.driver, flow.keys).cancelled == {first: second}
    assert signals(flow.driver, flow.keys)[-1] == ("cancel", first)
    if where != "lane":
        assert flow.cancel(first) == "cancelled"
        assert state_of(flow.driver, flow.keys).cancelled == {}
    assert flow.owner() == second  # what ends late frees only its own


def test_a_name_is_free_when_its_owner_has_ended_in_any_way(flow):
    for op in "SKCED":
        ids, (answer,) = flow.send(u())
        assert not answer.startswith("=")
        (delivery,) = flow.read()
        flow.end(delivery, "R")
        assert flow.send(u())[1] == ["=" + ids[0]]  # a retry keeps it
        flow.promote()
        (delivery,) = flow.read()
        flow.end(delivery, op)
        assert flow.owner() is None
    assert flow.rest() == {}


def test_a_name_until_the_start_is_free_from_then_on(flow):
    (first,), _ = flow.send(u(until_start=1))
    assert flow.send(u(until_start=1))[1] == ["=" + first]
    (delivery,) = flow.read()
    assert flow.begin(delivery) == [1]
    assert flow.owner() is None
    (second,), _ = flow.send(u(until_start=1))
    flow.end(delivery)
    assert flow.owner() == second


def test_a_name_for_a_span_is_kept_so_long_whether_or_not_it_has_ended(flow):
    (first,), _ = flow.send(u(ms=400))
    (delivery,) = flow.read()
    flow.end(delivery)
    assert flow.send(u(ms=400))[1] == ["=" + first]
    till = int(flow.run("HGET", flow.keys.unique, "u:x").split()[1])

    def sent():
        before = flow.driver.server_ms()
        _, (answer,) = flow.send(u(ms=400))
        assert answer[:1] == "=" or flow.driver.server_ms() >= till
        assert answer[:1] != "=" or before < till
        return answer[:1] != "="

    wait_until(sent, "the name to be free")


@pytest.mark.parametrize("policy", "crp")
def test_a_name_whose_owner_is_gone_is_free(flow, policy):
    flow.run("HSET", flow.keys.unique, "u:x", "0" * 32 + " 0", "u:y", "garbage")
    for name in ("u:x", "u:y"):
        (task_id,), (answer,) = flow.send(u(name, policy))
        assert "-" in answer
        assert "~" not in answer
        assert flow.owner(name) == task_id


def test_the_last_of_several_within_a_span_replaces_the_others_in_due(flow):
    quiet = u("d:x", "d", 0, 1)
    (first,), _ = flow.send(quiet, when="+5000000")
    (second,), (answer,) = flow.send(quiet, when="+5000000")
    assert (answer, flow.owner("d:x")) == ("~" + first, second)
    assert flow.cancel(first) == "cancelled"
    assert flow.due() == [second]


def test_one_whose_span_is_over_is_not_replaced(flow):
    quiet = u("d:x", "d", 0, 1)
    (first,), _ = flow.send(quiet, when="+0")
    flow.promote()
    (second,), (answer,) = flow.send(quiet, when="+5000000")
    assert (answer, flow.owner("d:x"), flow.on_lane()) == ("", second, [first])
