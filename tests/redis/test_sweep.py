"""What is held for task messages that are nowhere any more is freed, and nobody else's."""

from __future__ import annotations

import asyncio

from streamwork.ids import random_id
from streamwork.model.flow import NO_FLOW, held_limits
from streamwork.model.limits import Limit, Rate, Unique
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.limiting import Beginning, Limited, begin, submit, sweep
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.member import QueueFacts
from streamwork.worker.sweeper import Sweeper
from tests.helpers import body_of
from tests.redis.kit import LANE, end, read

ONE = {"concurrency": Limit(1)}


def send(driver, keys, count=1, **options):
    """Send messages with limits; returns their ids and bodies."""
    limits = NO_FLOW.changed(options or ONE).resolve("t", "1:", (b"", b""), (), {}).limits
    sent = [body_of("tests.echo") for _ in range(count)]
    messages = [Limited(1, task_id, "", b"1,0,0,1,0", limits, body) for task_id, body in sent]
    driver.run(submit(keys, (random_id(), 1, 60_000), [LANE], messages, 1, 64))
    return sent


def members(driver, keys):
    flat = driver.run(plain("HGETALL", keys.flow))
    return [f"{n}\0".encode() + i for i, r in zip(flat[::2], flat[1::2], strict=True) for n in held_limits(r)]


def test_what_waits_runs_or_is_due_keeps_what_it_holds(driver, keys):
    (first, _), (second, _) = send(driver, keys, 2)
    assert driver.run(sweep(keys, "flow", [first], LANE)) + driver.run(sweep(keys, "flow", [second])) == 0
    (held,) = read(driver, keys, "w1")
    assert driver.run(sweep(keys, "flow", [first], LANE)) == 0
    driver.run(scripts.settle(keys, "w1", [end(keys, held, "R", run_at=4_000_000_000_000)]))
    assert driver.run(sweep(keys, "flow", [first])) + driver.run(sweep(keys, "flow", [second])) == 0
    assert driver.run(plain("HLEN", keys.flow)) == 2
    assert len(members(driver, keys)) == 1


def numbers(driver, keys):
    """Return how many have, and how many wait for, the one limit that `send` sends with."""
    return [int(n or 0) for n in driver.run(plain("HMGET", keys.permits, "+c:t", "-c:t"))]


def test_numbers_that_somebody_changed_by_hand_are_corrected_and_the_next_goes_on(redis_url, driver, keys):
    (_, _), (second, _) = send(driver, keys, 2)
    (held,) = read(driver, keys, "w1")
    assert numbers(driver, keys) == [1, 1]
    driver.run(plain("HSET", keys.permits, "+c:t", 7, "-c:t", 9))
    driver.run(scripts.settle(keys, "w1", [end(keys, held, "S")]))
    assert numbers(driver, keys) == [6, 9]
    assert (members(driver, keys), driver.run(plain("ZCARD", keys.due))) == ([], 0)

    async def tick():
        redis = AsyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        queue = QueueFacts(keys)
        queue.on_duty = True
        service = Sweeper(redis, queue)
        try:
            await service.tick()
        finally:
            await redis.close()

    asyncio.run(tick())
    assert numbers(driver, keys) == [1, 0]
    assert driver.run(plain("ZRANGE", keys.due, 0, -1)) == [second.encode()]


def test_a_limit_in_which_nobody_is_leaves_no_number_behind(driver, keys):
    send(driver, keys, 2)
    for op in ("S", "Sm"):
        (held,) = read(driver, keys, "w1")
        driver.run(scripts.settle(keys, "w1", [end(keys, held, op)]))
        driver.run(scripts.promote(keys, [LANE], 10))
    assert driver.run(plain("EXISTS", keys.permits)) == 0


def test_the_duty_sets_the_window_and_finds_what_is_lost(redis_url, driver, keys):
    (first, _), (second, _) = send(driver, keys, 2)
    driver.run(plain("DEL", keys.lane(LANE)))
    driver.run(plain("HSET", keys.consumers, "w1", '{"slots": 30}', "w2", '{"slots": 20}', "w3", "nonsense"))

    async def tick():
        redis = AsyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        queue = QueueFacts(keys)
        service = Sweeper(redis, queue)
        assert await service.tick() == 0.1  # who is on duty is not known yet
        queue.on_duty = True
        try:
            assert await service.tick() == 0.2  # what was lost is not alone
        finally:
            await redis.close()

    asyncio.run(tick())
    assert driver.run(plain("HGET", keys.flow_state, "*")) == b"100"
    assert members(driver, keys) == [b"c:t\x00" + second.encode()]
    assert driver.run(plain("HEXISTS", keys.flow, first)) == 0


def test_a_lane_that_was_deleted_gives_back_its_permits_and_the_next_goes_on(driver, keys):
    (first, _), (second, _) = send(driver, keys, 2)
    driver.run(plain("DEL", keys.lane(LANE)))
    assert driver.run(sweep(keys, "flow", [first], LANE)) == 1
    assert driver.run(plain("ZRANGE", keys.due, 0, -1)) == [second.encode()]
    assert members(driver, keys) == [b"c:t\x00" + second.encode()]
    assert driver.run(plain("HKEYS", keys.flow)) == [second.encode()]


def test_what_has_moved_on_since_the_look_is_left_alone(driver, keys):
    ((first, _),) = send(driver, keys)
    assert driver.run(sweep(keys, "flow", [first], "3:gpu")) == 0


def test_names_whose_time_is_over_go(driver, keys):
    ((first, _),) = send(driver, keys, unique="a")
    send(driver, keys, unique=Unique("b", until=3600))
    driver.run(plain("HSET", keys.unique, "u:t:c", "f" * 32 + " 0", "u:t:d", "f" * 32 + " 1"))
    assert driver.run(sweep(keys, "unique", driver.run(plain("HKEYS", keys.unique)))) == 2
    assert sorted(driver.run(plain("HKEYS", keys.unique))) == [b"u:t:a", b"u:t:b"]
    assert driver.run(plain("HGET", keys.unique, "u:t:a")).split() == [first.encode(), b"0"]


def test_rates_that_are_full_again_go_with_the_starts_they_remember(driver, keys):
    for rate, is_over in ((Rate("1000000/s"), True), (Rate("1/h", window=True), False)):
        ((_, _),) = send(driver, keys, rate=rate)
        (held,) = read(driver, keys, "w1")
        begun = Beginning(held.task_id, held.entry, 1, b"1,0,0,1,0", held.body)
        assert driver.run(begin(keys, LANE, "w1", [begun])) == [1]
        while is_over and driver.run(plain("HLEN", keys.rates)):
            driver.run(sweep(keys, "rates", driver.run(plain("HKEYS", keys.rates))))
        driver.run(scripts.settle(keys, "w1", [end(keys, held, "S")]))
    fields = driver.run(plain("HKEYS", keys.rates))
    assert driver.run(sweep(keys, "rates", fields)) == 0
    driver.run(plain("HSET", keys.rates, fields[0], "0 1 1"))
    assert driver.run(sweep(keys, "rates", fields)) == 1
    assert driver.run(plain("EXISTS", keys.starts, keys.rates)) == 0


def test_numbers_are_not_touched_where_one_look_does_not_see_all(driver, keys):
    send(driver, keys, 3)
    driver.run(plain("HSET", keys.permits, "+c:t", 2))
    assert driver.run(sweep(keys, "counts", [2])) == 0
    assert numbers(driver, keys) == [2, 2]
    assert driver.run(sweep(keys, "counts", [3])) > 0
    assert numbers(driver, keys) == [1, 2]


def test_a_limit_that_is_as_busy_as_can_be_is_never_corrected(driver, keys):
    """Right numbers stay so, whatever else has come and gone since the look before."""
    send(driver, keys, 30)
    for _ in range(20):
        for held in read(driver, keys, "w1"):
            moved = "m" if driver.run(plain("HEXISTS", keys.moved, held.task_id)) else ""
            driver.run(scripts.settle(keys, "w1", [end(keys, held, "S" + moved)]))
        assert driver.run(sweep(keys, "counts", [1000])) == 0
        driver.run(scripts.promote(keys, [LANE], 10))
        assert len(members(driver, keys)) == 1
