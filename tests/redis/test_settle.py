"""settle.lua: one commit per delivery, all or nothing per call, everything freed (rules 3, 10, 20-23, 25, 33)."""

from __future__ import annotations

import random

import pytest

from streamwork.errors import StoreError
from streamwork.store import scripts
from streamwork.store.commands import plain
from tests.helpers import state_of
from tests.redis.kit import (
    DUE_MS,
    KEEP_MS,
    LANE,
    STATES,
    deliver,
    due_body,
    dump,
    end,
    full,
    hand_over,
    owners,
    put,
    read,
    settle,
    signals,
    take,
)

OPS = "SKCEDR"


def test_success_leaves_result_journal_and_counters(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, value=b"\x07")
    state = state_of(driver, keys)
    result = state.results[delivery.task_id]
    assert (result.token, result.state, result.payload) == (delivery.token, "succeeded", b"\x07")
    assert 0 < driver.run(plain("PTTL", keys.result(delivery.task_id))) <= KEEP_MS
    (record,) = state.journal
    assert (record.id, record.state, record.entry) == (delivery.task_id, "succeeded", delivery.entry)
    assert (state.counts, state.settled, state.backlog) == ({"succeeded": 1}, {LANE: 1}, 0)
    assert len(state.lanes[LANE]) == 1  # history stays


@pytest.mark.parametrize(("op", "name"), [("K", "skipped"), ("C", "cancelled")])
def test_skip_and_cancel_are_ends_too(driver, keys, op, name):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, op)
    state = state_of(driver, keys)
    assert state.results[delivery.task_id].state == name
    assert (state.counts, state.settled, state.backlog) == ({name: 1}, {LANE: 1}, 0)


def test_retry_moves_to_due_without_a_result(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, "R")
    state = state_of(driver, keys)
    assert state.due == {delivery.task_id: DUE_MS}
    assert state.due_body == {delivery.task_id: due_body(delivery)}
    assert (state.results, state.counts, state.settled, state.backlog) == ({}, {"retried": 1}, {LANE: 1}, 1)
    assert signals(driver, keys)[-1] == ("due", str(DUE_MS))


def test_only_a_new_head_of_due_wakes_the_promoter(driver, keys):
    first, second = deliver(driver, keys, "w1", 2)
    assert settle(driver, keys, first, "R", run_at=DUE_MS)
    assert settle(driver, keys, second, "R", run_at=DUE_MS + 1)
    assert [event for event in signals(driver, keys) if event[0] == "due"] == [("due", str(DUE_MS))]


def test_dead_keeps_the_letter_and_the_result(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, "D")
    state = state_of(driver, keys)
    assert state.dead[delivery.task_id].body == delivery.body
    assert driver.run(plain("ZSCORE", keys.dead, delivery.task_id)) == b"7"
    assert state.results[delivery.task_id].state == "dead"
    assert (state.counts, state.settled, state.backlog) == ({"dead": 1}, {LANE: 1}, 0)


def test_a_result_that_nobody_keeps_is_not_written(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, keep_ms=0)
    state = state_of(driver, keys)
    assert (state.results, len(state.journal), state.counts) == ({}, 1, {"succeeded": 1})


def test_the_reply_stream_hears_of_it_only_while_it_exists(driver, keys):
    small, large, nobody = deliver(driver, keys, "w1", 3)
    driver.run(scripts.watch(keys, "client", 60_000))
    assert settle(driver, keys, small, reply="client", value=b"s")
    assert settle(driver, keys, large, reply="client", value=b"l" * 5000)
    assert settle(driver, keys, nobody, reply="gone")
    rows = driver.run(plain("XRANGE", keys.reply("client"), "-", "+"))
    record = driver.run(plain("GET", keys.result(small.task_id)))
    assert [fields for _, fields in rows[1:]] == [
        [b"i", small.task_id.encode(), b"v", record],
        [b"i", large.task_id.encode(), b"v", b""],
    ]
    assert driver.run(plain("EXISTS", keys.reply("gone"))) == 0


def test_a_chunk_over_lanes_ops_and_reply_streams_is_one_call(driver, keys):
    driver.run(scripts.watch(keys, "a", 60_000))
    driver.run(scripts.watch(keys, "b", 60_000))
    low, high = deliver(driver, keys, "w1", 6), deliver(driver, keys, "w1", 6, lane="3:gpu")
    chunk = [
        end(keys, delivery, op, reply=reply)
        for delivery, op, reply in zip([*low, *high], OPS * 2, "abbaabbaabba", strict=True)
    ]
    assert driver.run(scripts.settle(keys, "w1", chunk)) == []
    state = state_of(driver, keys)
    assert state.counts == dict.fromkeys(STATES.values(), 2)
    assert state.settled == {LANE: 6, "3:gpu": 6}
    assert [len(driver.run(plain("XRANGE", keys.reply(name), "-", "+"))) - 1 for name in "ab"] == [5, 5]
    assert (len(state.due), len(state.dead), len(state.results), state.in_flight) == (2, 2, 10, 0)


def test_five_hundred_items_are_settled_exactly(driver, keys):
    held = deliver(driver, keys, "w1", 500)
    draw = random.Random(1)
    ops = [draw.choice(OPS) for _ in held]
    stolen = {n for n in range(500) if n % 7 == 0}
    for n in stolen:
        assert settle(driver, keys, held[n]._replace(consumer="w1"), "K")  # committed before, under another record
    chunk = [end(keys, delivery, op) for delivery, op in zip(held, ops, strict=True)]
    lost = driver.run(scripts.settle(keys, "w1", chunk))
    # The token is the same consumer's own, so an end with a result counts as committed; a retry never was.
    assert set(lost) == {n for n in stolen if ops[n] == "R"}
    state = state_of(driver, keys)
    assert state.settled == {LANE: 500}
    assert sum(state.counts.values()) == 500
    assert len(state.journal) == 500
    assert len(state.due) == sum(ops[n] == "R" for n in range(500) if n not in stolen) == state.counts["retried"]


def bad_items(keys, delivery):
    good = end(keys, delivery)
    dead, retry = end(keys, delivery, "D"), end(keys, delivery, "R")
    record = good.rest[0]
    for keep in ("x", "", -1, 1.5, "inf", "nan", "1e300", 10**17):
        yield f"keep {keep}", good._replace(rest=(record, keep))
    for run_at in ("x", "", -1, 0.5, "inf", "-inf", " "):
        yield f"run_at {run_at}", retry._replace(rest=(run_at, retry.rest[1]))
    for died_at in ("x", -1, "inf"):
        yield f"died_at {died_at}", dead._replace(rest=(*dead.rest[:2], died_at, dead.rest[3]))
    for entry in (b"x", b"", b"5", b"5-", b"-5", b"5-5-5", b"18446744073709551616-0", b"1-99999999999999999999", b"*"):
        yield f"entry {entry}", good._replace(entry=entry)
    for delivered in ("x", -1, 1.5):
        yield f"delivered {delivered}", good._replace(delivered=delivered)
    for op in ("X", "s", "!"):
        yield f"op {op}", good._replace(op=op)
    yield "too short", dead._replace(rest=dead.rest[:3])
    yield "too long", good._replace(rest=(*good.rest, b"more"))


def test_one_bad_item_is_an_error_before_any_write(driver, keys, namespace):
    delivery, bad = deliver(driver, keys, "w1", 2)
    others = [end(keys, delivery, op) for op in "SDR"]
    before = dump(driver, namespace)
    wrongly_taken = []
    for what, item in bad_items(keys, bad):
        for chunk in ([*others[:1], item], [*others, item], [item, *others]):
            try:
                driver.run(scripts.settle(keys, "w1", chunk))
                wrongly_taken.append(what)
            except StoreError as error:
                assert "SETTLE-" in str(error), what  # noqa: PT017 - the loop goes on
        assert dump(driver, namespace) == before, what
    assert wrongly_taken == []
    assert settle(driver, keys, delivery)


BREAKABLE = [
    ("settled", "S"), ("journal", "S"), ("cancelled", "S"), ("suspects", "S"), ("lane", "S"),
    ("due", "R"), ("due_body", "R"), ("dead", "D"), ("dead_body", "D"), ("moved", "Sm"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "op"), BREAKABLE)
def test_a_key_of_another_type_is_an_error_before_any_write(own, own_keys, name, op):
    keys = own_keys
    (delivery,), (other,) = deliver(own, keys, "w1"), deliver(own, keys, "w1", lane="3:gpu")
    broken = keys.lane("3:gpu") if name == "lane" else getattr(keys, name)
    own.run(plain("DEL", broken))
    own.run(plain("SADD", broken, "foreign"))
    before = dump(own, "own")
    with pytest.raises(StoreError):
        own.run(scripts.settle(keys, "w1", [end(keys, delivery), end(keys, other, op)]))
    assert dump(own, "own") == before


@pytest.mark.parametrize(("name", "op"), [("control", "R"), ("counts", "S"), ("counts", "R")])
def test_what_only_tells_of_an_end_does_not_stop_it(own, own_keys, name, op):
    (delivery,) = deliver(own, own_keys, "w1")
    own.run(plain("DEL", getattr(own_keys, name)))
    own.run(plain("SADD", getattr(own_keys, name), "foreign"))
    assert settle(own, own_keys, delivery, op)
    own.run(plain("DEL", getattr(own_keys, name)))
    state = state_of(own, own_keys)
    assert (state.in_flight, len(state.due), len(state.journal)) == (0, 1 if op == "R" else 0, 1)


def test_an_overdue_member_that_nobody_announced_does_not_let_a_retry_wait(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    driver.run(plain("ZADD", keys.due, 1, "foreign"))
    assert settle(driver, keys, delivery, "R", run_at=1_000)
    assert [event for event in signals(driver, keys) if event[0] == "due"] == [("due", "1")]
    driver.run(plain("ZREM", keys.due, "foreign"))


def test_a_reply_stream_that_nobody_reads_is_bounded(own, own_keys):
    own.run(scripts.watch(own_keys, "r", 60_000))
    for _ in range(24):
        chunk = [end(own_keys, d, reply="r", keep_ms=0) for d in deliver(own, own_keys, "w1", 500)]
        assert own.run(scripts.settle(own_keys, "w1", chunk)) == []
    assert 10_000 <= own.run(plain("XLEN", own_keys.reply("r"))) < 10_200


def test_a_garbage_counter_or_result_does_not_stop_a_commit(own, own_keys):
    keys = own_keys
    first, second = deliver(own, keys, "w1", 2)
    own.run(plain("HSET", keys.counts, "succeeded", "many"))
    own.run(plain("HSET", keys.settled, LANE, "some"))
    own.run(plain("SADD", keys.result(second.task_id), "foreign"))
    assert own.run(scripts.settle(keys, "w1", [end(keys, first), end(keys, second)])) == []
    assert owners(own, keys) == {}
    assert own.run(plain("GET", keys.result(second.task_id))).startswith(second.token.encode())


@pytest.mark.parametrize("op", OPS)
def test_a_zombie_is_lost_once_the_new_owner_has_settled(driver, keys, namespace, op):
    for new_op in OPS:
        (old,) = deliver(driver, keys, "w1")
        new = hand_over(driver, keys, old, "w2")
        assert settle(driver, keys, new, new_op)
        before = dump(driver, namespace)
        assert not settle(driver, keys, old, op), f"{op} after {new_op}"
        assert dump(driver, namespace) == before


@pytest.mark.parametrize("op", ["R", "D"])
def test_a_zombie_cannot_reschedule_or_kill_what_another_one_runs(driver, keys, namespace, op):
    (old,) = deliver(driver, keys, "w1")
    new = hand_over(driver, keys, old, "w2")
    before = dump(driver, namespace)
    assert not settle(driver, keys, old, op)
    assert dump(driver, namespace) == before
    assert settle(driver, keys, new)


@pytest.mark.parametrize("op", ["R", "D"])
def test_the_same_consumer_with_an_old_delivery_count_cannot_either(driver, keys, op):
    (old,) = deliver(driver, keys, "w1")
    new = hand_over(driver, keys, old, "w1")
    assert new.count == old.count + 1
    assert not settle(driver, keys, old, op)
    assert owners(driver, keys) == {old.entry: ("w1", new.count)}
    assert settle(driver, keys, new, op)


@pytest.mark.parametrize("new_op", OPS)
def test_the_first_success_wins_and_the_other_owner_is_lost(driver, keys, new_op):
    (old,) = deliver(driver, keys, "w1")
    new = hand_over(driver, keys, old, "w2")
    assert settle(driver, keys, old)
    assert not settle(driver, keys, new, new_op)
    state = state_of(driver, keys)
    assert state.results[old.task_id].token == old.token
    assert (state.counts, state.settled, state.backlog, state.due, state.dead) == (
        {"succeeded": 1}, {LANE: 1}, 0, {}, {},
    )  # fmt: skip


def test_an_identical_retry_of_the_new_owner_is_not_the_zombies(driver, keys):
    (old,) = deliver(driver, keys, "w1")
    new = hand_over(driver, keys, old, "w2")
    assert settle(driver, keys, new, "R")
    assert due_body(old) == due_body(new)
    assert not settle(driver, keys, old, "R")


@pytest.mark.parametrize("keep_ms", [KEEP_MS, 0])
@pytest.mark.parametrize("op", OPS)
def test_a_resend_after_a_lost_reply_hears_committed(driver, keys, namespace, op, keep_ms):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, op, keep_ms=keep_ms)
    before = dump(driver, namespace)
    for flags in ("", "!"):
        assert settle(driver, keys, delivery, op + flags, keep_ms=keep_ms)
    assert dump(driver, namespace) == before


def test_a_resent_retry_hears_committed_also_when_it_runs_again_already(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery, "R", run_at=1)
    assert driver.run(scripts.promote(keys, [LANE], 10)).moved == 1
    (second,) = read(driver, keys, "w2")
    assert settle(driver, keys, second, "Sm")
    assert settle(driver, keys, delivery, "R", run_at=1)
    assert state_of(driver, keys).due == {}


def test_a_resent_chunk_hears_the_same_answer_item_by_item(driver, keys):
    held = deliver(driver, keys, "w1", 6)
    # All of it was taken from w1: only the gate of success is still open for it.
    driver.run(scripts.take(keys, LANE, "w1", mode="leave"))
    chunk = [end(keys, delivery, op, keep_ms=0) for delivery, op in zip(held, "SRKDSR", strict=True)]
    first = driver.run(scripts.settle(keys, "w1", chunk))
    assert first == [1, 3, 5]
    assert driver.run(scripts.settle(keys, "w1", chunk)) == first


def test_two_deliveries_of_one_entry_that_end_at_the_same_instant_are_told_apart(driver, keys):
    (first,) = deliver(driver, keys, "w1")
    second = hand_over(driver, keys, first, "w1")
    assert settle(driver, keys, first, keep_ms=0)
    assert not settle(driver, keys, second, keep_ms=0)
    assert settle(driver, keys, first, keep_ms=0), "and a resend still hears the answer of its own"


def test_the_settle_mark_expires(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, delivery)
    assert 590_000 < driver.run(plain("PTTL", keys.settle_mark("w1"))) <= 600_000


def test_careful_refuses_a_foreign_message_under_the_same_entry(own, own_keys):
    keys = own_keys
    (delivery,) = deliver(own, keys, "w1")
    own.run(plain("FLUSHALL"))
    (stranger,) = put(own, keys)
    own.run(plain("DEL", keys.lane(LANE)))
    own.run(plain("XADD", keys.lane(LANE), delivery.entry, "d", stranger.body))
    own.run(plain("XGROUP", "CREATE", keys.lane(LANE), "workers", "0"))
    (foreign,) = read(own, keys, "w1")
    assert (foreign.entry, foreign.task_id) == (delivery.entry, stranger.task_id)
    before = dump(own, "own")
    for op in OPS:
        assert not settle(own, keys, delivery, op + "!")
    assert dump(own, "own") == before
    assert settle(own, keys, foreign, "S!")


def test_careful_refuses_success_of_who_is_not_the_owner(driver, keys, namespace):
    (old,) = deliver(driver, keys, "w1")
    new = hand_over(driver, keys, old, "w2")
    before = dump(driver, namespace)
    assert not settle(driver, keys, old, "S!")
    assert dump(driver, namespace) == before
    assert settle(driver, keys, new, "S!")


def test_careful_is_no_error_where_the_entry_is_gone(driver, keys):
    (delivery,) = deliver(driver, keys, "w1")
    driver.run(plain("XDEL", keys.lane(LANE), delivery.entry))
    assert not settle(driver, keys, delivery, "S!")
    assert settle(driver, keys, delivery)  # not careful: the gate alone


@pytest.mark.parametrize("op", OPS)
def test_a_lane_that_is_gone_is_lost_and_does_not_stop_its_neighbours(driver, keys, op):
    (gone,), (kept,) = deliver(driver, keys, "w1", lane="3:gpu"), deliver(driver, keys, "w1")
    driver.run(plain("DEL", keys.lane("3:gpu")))
    assert driver.run(scripts.settle(keys, "w1", [end(keys, kept), end(keys, gone, op)])) == [1]
    assert driver.run(plain("GET", keys.result(kept.task_id))) is not None
    assert driver.run(plain("GET", keys.result(gone.task_id))) is None


@pytest.mark.parametrize("op", "SKCD")
def test_an_end_frees_moved_suspects_and_cancelled(driver, keys, op):
    (first,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, first, "R", run_at=1)
    driver.run(scripts.promote(keys, [LANE], 10))
    (delivery,) = read(driver, keys, "w1")
    driver.run(scripts.take(keys, LANE, "w1", mode="dead", evidence="SIGKILL", started=[delivery.entry]))
    (adopted,) = driver.run(scripts.adopt(keys, LANE, "w2", 1))
    delivery = delivery._replace(consumer="w2", count=adopted.delivered)
    assert driver.run(scripts.cancel(keys, delivery.task_id, "me", b"c\ncancelled\n", 1000, "me")) == "requested"
    state = state_of(driver, keys)
    assert (len(state.moved), len(state.suspects), len(state.cancelled)) == (1, 1, 1)
    assert settle(driver, keys, delivery, op + "ms")
    state = state_of(driver, keys)
    assert (state.moved, state.suspects, state.cancelled) == ({}, {}, {})


def test_a_retry_frees_its_place_and_keeps_the_cancel_mark(driver, keys):
    (first,) = deliver(driver, keys, "w1")
    assert settle(driver, keys, first, "R", run_at=1)
    driver.run(scripts.promote(keys, [LANE], 10))
    (delivery,) = read(driver, keys, "w1")
    driver.run(plain("HSET", keys.suspects, f"{LANE}/{delivery.entry.decode()}", "1,0,x"))
    driver.run(scripts.cancel(keys, delivery.task_id, "me", b"c\ncancelled\n", 1000, "me"))
    assert settle(driver, keys, delivery, "Rms")
    state = state_of(driver, keys)
    assert (state.moved, state.suspects, state.cancelled) == ({}, {}, {delivery.task_id: "me"})


def test_a_suspicion_that_the_settling_one_does_not_know_of_is_freed(driver, keys):
    (zombie,) = deliver(driver, keys, "w1")
    take(driver, keys, evidence="vanished")
    assert state_of(driver, keys).suspects
    assert settle(driver, keys, zombie)
    assert state_of(driver, keys).suspects == {}


def test_the_marks_of_other_messages_stay(driver, keys):
    first, second = deliver(driver, keys, "w1", 2)
    for delivery in (first, second):
        driver.run(plain("HSET", keys.cancelled, delivery.task_id, "me"))
        driver.run(plain("HSET", keys.suspects, f"{LANE}/{delivery.entry.decode()}", "1,0,x"))
    assert settle(driver, keys, first)
    state = state_of(driver, keys)
    assert (list(state.cancelled), list(state.suspects)) == ([second.task_id], [f"{LANE}/{second.entry.decode()}"])
    assert settle(driver, keys, second)


@pytest.mark.parametrize("op", OPS)
def test_it_works_when_redis_is_full(own, own_keys, op):
    (delivery,) = deliver(own, own_keys, "w1")
    with full(own):
        assert settle(own, own_keys, delivery, op)
    state = state_of(own, own_keys)
    assert (state.counts, state.settled, len(state.journal)) == ({STATES[op]: 1}, {LANE: 1}, 1)


def test_nothing_is_written_for_what_is_lost_even_when_full(own, own_keys):
    (old,) = deliver(own, own_keys, "w1")
    assert settle(own, own_keys, hand_over(own, own_keys, old, "w2"))
    with full(own):
        assert not settle(own, own_keys, old)
