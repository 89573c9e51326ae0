"""begin.lua: what was reserved is spent when it starts; rates, also after crashes and stalls (rule 28)."""

from __future__ import annotations

import pytest

from streamwork.store.commands import plain
from tests.helpers import state_of, wait_until
from tests.redis.flowkit import Flow, c, g, k, t, u, w
from tests.redis.kit import LANE, full, owners, signals

HOUR = 3_600_000_000


def now_us(flow):
    seconds, us = flow.run("TIME")
    return int(seconds) * 1_000_000 + int(us)


def starts(flow, name="w:x"):
    """Return the instants of all starts that are still kept, us."""
    return [int(row.split(b"\0")[1]) for row in flow.run("ZRANGE", flow.keys.starts, 0, -1)]


def drain(flow, count):
    """Begin and end messages as they come, until so many have; returns the instants before and after each start."""
    spans = []

    def look():
        flow.promote()
        for delivery in flow.read():
            before = now_us(flow)
            assert flow.begin(delivery) == [1]
            spans.append((before, now_us(flow)))
            flow.end(delivery)
        return len(spans) >= count

    wait_until(look, lambda: f"{count} starts: {spans}, {flow.rest()}", 20)
    return spans


def test_a_token_is_reserved_on_the_lane_and_spent_at_the_start(flow):
    ids, _ = flow.send(t(HOUR, 2), count=3)
    assert (flow.on_lane(), flow.holders("t:x"), flow.line("t:x")) == (ids[:2], ids[:2], ids[2:])
    assert flow.run("EXISTS", flow.keys.rates) == 0
    one, two = flow.read()
    assert flow.begin(one, two) == [1, 1]
    assert flow.holders("t:x") == []
    left, at, _ = flow.run("HGET", flow.keys.rates, "t:x").split()
    assert 0 <= float(left) < 0.01
    assert abs(int(at) - now_us(flow)) < HOUR // 100
    assert flow.promote().moved == 0
    assert flow.line("t:x") == ids[2:]


def test_a_bucket_gives_a_burst_and_then_a_token_each_period(flow):
    period = 20_000
    flow.send(t(period, 3), count=8)
    assert len(flow.on_lane()) == 3
    spans = drain(flow, 8)
    for n in range(8):
        for m in range(n + 1, 8):
            # m - n + 1 starts: a burst of 3 and one more for each period; the last one's instant is behind its bounds.
            assert spans[m][1] - spans[n][0] >= (m - n + 1 - 3) * period - 5, (n, m, spans)
    assert flow.rest() == {}


def test_parts_of_a_token_count(flow):
    flow.send(t(HOUR, 4))
    (delivery,) = flow.read()
    flow.run("HSET", flow.keys.rates, "t:x", f"0.500000 {now_us(flow) - HOUR * 7 // 10} {now_us(flow) + 9 * HOUR}")
    ids, _ = flow.send(t(HOUR, 4))
    assert flow.line("t:x") == ids  # 1.2, and one is reserved
    assert flow.begin(delivery) == [1]
    left, _, _ = flow.run("HGET", flow.keys.rates, "t:x").split()
    assert 0.19 < float(left) < 0.25
    assert flow.line("t:x") == ids
    (at,) = flow.run("ZRANGE", flow.keys.wake, 0, -1, "WITHSCORES")[1:]
    assert abs(int(float(at)) - (now_us(flow) + HOUR * 8 // 10)) < HOUR // 50


def test_a_bucket_is_never_fuller_than_its_burst(flow):
    flow.run("HSET", flow.keys.rates, "t:x", "1.0 1 1")
    flow.run("PEXPIRE", flow.keys.rates, 60_000)
    flow.send(t(1000, 2), count=5)
    assert len(flow.on_lane()) == 2


def test_another_burst_in_a_later_message_counts_for_that_message(flow):
    flow.send(t(HOUR, 1), count=2)
    flow.cancel(flow.line("t:x")[0])
    ids, _ = flow.send(t(HOUR, 3), count=3)
    assert (len(flow.on_lane()), flow.line("t:x")) == (3, ids[2:])


def test_a_window_sees_no_more_in_any_span_of_its_length(flow):
    period = 60_000
    flow.send(w(3, period), count=11)
    assert len(flow.on_lane()) == 3
    found = set()

    def look():
        flow.promote()
        for delivery in flow.read():
            assert flow.begin(delivery) == [1]
            found.update(starts(flow))
            flow.end(delivery)
        return not flow.parked() and not flow.on_lane()

    wait_until(look, "all to have started", 20)
    instants = sorted(found)
    assert len(instants) == 11
    assert all(later - one > period for one, later in zip(instants, instants[3:], strict=False))
    assert flow.rest() == {}


def test_a_window_counts_starts_and_not_sends(flow):
    ids, _ = flow.send(w(2, HOUR), count=3)
    assert flow.cancel(ids[2]) == "cancelled"
    one, two = flow.read()
    flow.begin(one)
    flow.end(two, "C")  # it never started: its place is free
    later, _ = flow.send(w(2, HOUR), count=2)
    assert (flow.on_lane(), flow.line("w:x")) == ([ids[0], later[0]], later[1:])


def test_what_never_started_gives_its_token_to_the_next(flow):
    ids, _ = flow.send(t(HOUR), count=2)
    (delivery,) = flow.read()
    flow.end(delivery, "C")
    assert (flow.on_lane(), flow.holders("t:x")) == (ids[1:], ids[1:])


@pytest.mark.parametrize("rate", [t(HOUR), w(1, HOUR)], ids=["bucket", "window"])
def test_a_crash_before_the_start_keeps_the_token_and_one_after_it_asks_for_another(flow, rate):
    (first, second), _ = flow.send(c(most=2), rate, count=2)
    (delivery,) = flow.read()
    delivery = flow.adopt(delivery)
    assert flow.begin(delivery) == [1]  # reserved all the time
    again = flow.adopt(delivery, "w3")
    assert again.count == 3
    assert flow.holders("c:x") == [first]
    place = f"{LANE}/{again.entry.decode()}"
    flow.run("HSET", flow.keys.suspects, place, "1,0,x")
    assert flow.begin(again) == [0]
    assert flow.line(rate[1]) == [second, first]
    assert (flow.holders("c:x"), flow.on_lane(), owners(flow.driver, flow.keys)) == ([], [], {})
    state = state_of(flow.driver, flow.keys)
    assert (state.undelivered, state.suspects) == (0, {})
    assert flow.begin(again) == [-1]  # as when the answer was lost
    assert flow.line(rate[1]) == [second, first]


def test_what_is_set_aside_leaves_no_copy_of_its_body(flow):
    flow.send(w(1, HOUR), count=2)
    (delivery,) = flow.read()
    assert flow.begin(delivery) == [1]
    flow.run("HSET", flow.keys.kept, f"{LANE}/{delivery.entry.decode()}", "x\ny\nz")
    assert flow.begin(delivery) == [0]
    assert flow.run("EXISTS", flow.keys.kept) == 0


def test_what_is_set_aside_keeps_its_turn_in_a_strict_order_and_lets_others_in_elsewhere(flow):
    rate = w(1, HOUR)
    (first,), _ = flow.send(k(), c(), rate)
    behind, _ = flow.send(k())
    other, _ = flow.send(c())
    (delivery,) = flow.read()
    flow.begin(delivery)
    assert flow.begin(flow.adopt(delivery)) == [0]
    assert (flow.holders("k:x"), flow.line("k:x"), flow.line("w:x")) == ([first], behind, [first])
    assert (flow.holders("c:x"), flow.due()) == (other, other)
    flow.promote()
    assert flow.on_lane() == other


@pytest.mark.parametrize("wrong", ["consumer", "count", "gone"])
def test_whoever_does_not_have_it_spends_nothing(flow, wrong):
    flow.send(t(HOUR))
    (delivery,) = flow.read()
    changed = {"consumer": {"consumer": "w9"}, "count": {"count": 2}, "gone": {"entry": b"1-1"}}[wrong]
    assert flow.begin(delivery._replace(**changed)) == [-1]
    assert len(flow.holders("t:x")) == 1
    assert flow.run("EXISTS", flow.keys.rates) == 0


def test_a_reservation_survives_giving_back(flow):
    ids, _ = flow.send(t(HOUR), g(), c())
    (delivery,) = flow.read()
    assert flow.release(delivery) == 1
    assert [flow.holders(name) for name in ("t:x", "g:x", "c:x")] == [ids] * 3


def test_a_retry_asks_for_a_new_token(flow):
    ids, _ = flow.send(t(HOUR))
    (delivery,) = flow.read()
    flow.begin(delivery)
    flow.end(delivery, "R")
    flow.promote()
    assert flow.line("t:x") == ids


def test_the_promoter_is_told_when_a_line_has_its_next_token(flow):
    period = 150_000
    ids, _ = flow.send(t(period), count=2)
    (delivery,) = flow.read()
    assert flow.promote().next_at_ms is None  # nothing to wait for while it is reserved
    flow.begin(delivery)
    at = int(flow.run("HGET", flow.keys.rates, "t:x").split()[1])
    told = signals(flow.driver, flow.keys)[-1]
    assert told[0] == "due"
    assert abs(int(told[1]) * 1000 - (at + period)) <= 2000
    next_at_ms = flow.promote().next_at_ms
    if next_at_ms is not None:
        assert at + period <= next_at_ms * 1000 <= at + period + 3000
    flow.end(delivery)

    def woken():
        flow.promote()
        if flow.parked():
            return False
        assert now_us(flow) >= at + period - 2
        return True

    wait_until(woken, "the next one to be woken")
    assert flow.on_lane() == ids[1:]


def test_lines_of_rates_are_woken_in_order_and_only_as_far_as_there_are_tokens(flow):
    flow.send(t(HOUR, 3), count=3)
    for delivery in flow.read():
        flow.begin(delivery)
        flow.end(delivery)
    low, _ = flow.send(t(HOUR, 3), count=3, lane="0:")
    high, _ = flow.send(t(HOUR, 3), count=1)
    flow.run("HSET", flow.keys.rates, "t:x", f"2.0 {now_us(flow)} {now_us(flow) + HOUR}")
    flow.run("ZADD", flow.keys.wake, 1, "t:x")
    flow.promote((LANE, "0:"))
    assert (flow.on_lane(), flow.on_lane("0:"), flow.line("t:x")) == (high, low[:1], low[1:])
    assert flow.run("ZSCORE", flow.keys.wake, "t:x")


def test_a_name_until_the_start_is_freed_only_by_its_owner(flow):
    (first,), _ = flow.send(u(until_start=1))
    (delivery,) = flow.read()
    flow.run("HSET", flow.keys.unique, "u:x", "0" * 32 + " 0")
    assert flow.begin(delivery) == [1]
    assert flow.owner() == "0" * 32
    flow.end(delivery)
    assert flow.owner() == "0" * 32
    assert first


def test_it_works_when_redis_is_full(own, own_keys):
    flow = Flow(own, own_keys)
    flow.send(c(), t(HOUR, 2), w(2, HOUR), count=1)
    (delivery,) = flow.read()
    with full(own):
        assert flow.begin(delivery) == [1]
        flow.end(delivery)
    assert flow.run("HGET", own_keys.rates, "t:x")
    flow.send(c("c:y"), w(2, HOUR))
    (delivery,) = flow.read()
    assert flow.begin(delivery) == [1]
    with full(own):
        assert flow.begin(delivery) == [0]
    assert len(flow.parked()) == 1


def test_rates_are_forgotten_once_they_are_full_again(flow):
    flow.send(t(30_000, 2), w(5, 30_000), count=2)
    for delivery in flow.read():
        flow.begin(delivery)
        flow.end(delivery)
    for key in (flow.keys.rates, flow.keys.starts):
        assert 0 < flow.driver.run(plain("PTTL", key)) <= 1100
