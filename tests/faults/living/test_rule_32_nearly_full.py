"""Rule 32: above 85 % of maxmemory history goes early and large results are dropped, so that work goes on."""

from __future__ import annotations

import asyncio

import pytest

from streamwork import Streamwork
from streamwork.broker.info import info
from streamwork.config import load
from streamwork.errors import ResultGone
from streamwork.store import healing, scripts
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import DROPPED, decode_result
from streamwork.worker import upkeep
from streamwork.worker.embedded import EmbeddedWorker
from tests.faults.living.kit import facts_of, must_fail, on_loop
from tests.faults.unguarded import module_without
from tests.helpers import state_of
from tests.redis.kit import LANE, deliver, end, full, settle

CONFIG = load({"keep.history_s": 3600}, environ={}).config
LARGE = b"\xda\x08\x00" + b"x" * 2048


@pytest.fixture
def keys():
    """Keys of a queue on a server of its own."""
    return QueueKeys("own", "default")


def fill(driver, share=0.9):
    """Let a server be as full as this; what it has now is taken for that share."""
    used = int(driver.run(info("memory"))["used_memory"])
    driver.run(plain("CONFIG", "SET", "maxmemory", int(used / share)))


def with_history(driver, keys, count=400):
    for delivery in deliver(driver, keys, "w1", count):
        assert settle(driver, keys, delivery)


def tick(url, keys, module=upkeep):
    return on_loop(url, lambda own: module.Maintainer(own, CONFIG, facts_of(keys)).tick())


def history_goes_early(url, driver, keys, module=upkeep):
    with_history(driver, keys)
    tick(url, keys)
    assert driver.run(plain("XLEN", keys.lane(LANE))) == 400
    fill(driver)
    pause_s = tick(url, keys, module)
    rest = driver.run(plain("XLEN", keys.lane(LANE))), driver.run(plain("XLEN", keys.journal))
    assert max(rest) <= 200, f"history stays though Redis is nearly full: {rest}"
    assert pause_s == module.Maintainer.HASTY_S


def test_history_goes_early(server, own, keys, caplog):
    history_goes_early(server.url, own, keys)
    assert caplog.text.count("Redis is nearly full") == 1


def test_without_it_history_stays(server, own, keys):
    module = module_without("streamwork.worker.upkeep", "early trim")
    must_fail(history_goes_early, server.url, own, keys, module, says="history stays")


def test_what_is_unsettled_stays_also_then(server, own, keys):
    (held, *_) = deliver(own, keys, "w1", 250)
    fill(own)
    tick(server.url, keys)
    assert (state_of(own, keys).in_flight, own.run(plain("XLEN", keys.lane(LANE)))) == (250, 250)
    own.run(plain("CONFIG", "SET", "maxmemory", 0))
    assert settle(own, keys, held)


def a_full_redis_is_made_room_in(driver, keys):
    with_history(driver, keys)
    with full(driver):
        try:
            driver.run(healing.maintain(keys, LANE, "99999999999999", 10_000, 7))
        except Exception as error:
            raise AssertionError(f"a full Redis refuses to be trimmed: {error}") from error
    assert driver.run(plain("XLEN", keys.lane(LANE))) <= 100


def test_a_full_redis_is_made_room_in(own, keys):
    a_full_redis_is_made_room_in(own, keys)


def test_without_a_first_write_that_is_taken_it_stays_full(server, unguarded, keys):
    must_fail(a_full_redis_is_made_room_in, unguarded("trim when full", url=server.url), keys, says="refuses")


def large_results_are_dropped(driver, keys):
    small, large, failed = deliver(driver, keys, "w1", 3)
    driver.run(healing.maintain(keys, LANE, "0", 10_000, 7, healing.Bounds(nearly_full_ms=60_000)))
    ends = [end(keys, small, reply="r"), end(keys, large, value=LARGE, reply="r"), end(keys, failed, "D", value=LARGE)]
    driver.run(scripts.watch(keys, "r", 60_000))
    assert driver.run(scripts.settle(keys, "w1", ends)) == []
    records = [driver.run(plain("GET", keys.result(each.task_id))) for each in (small, large, failed)]
    assert decode_result(records[0]).payload == b"\xc0"
    assert decode_result(records[2]).payload == LARGE  # why a message is dead is no result
    assert len(records[1]) < 1024, "a large result is kept though Redis is nearly full"
    assert decode_result(records[1])[1:] == ("succeeded", DROPPED)
    replies = driver.run(plain("XRANGE", keys.reply("r"), "-", "+"))
    assert [fields[3] for _, fields in replies[1:]] == records[:2]
    assert driver.run(scripts.settle(keys, "w1", ends)) == []  # a resend finds its own token


def test_large_results_are_dropped(own, keys):
    large_results_are_dropped(own, keys)


def test_without_it_large_results_fill_what_is_left(server, unguarded, keys):
    must_fail(large_results_are_dropped, unguarded("dropped results", url=server.url), keys, says="is kept")


def test_it_ends_by_itself(own, keys):
    (delivery,) = deliver(own, keys, "w1")
    own.run(healing.maintain(keys, LANE, "0", 10_000, 7, healing.Bounds(nearly_full_ms=60_000)))
    assert own.run(plain("PTTL", keys.nearly_full)) > 50_000
    own.run(plain("DEL", keys.nearly_full))
    assert settle(own, keys, delivery, value=LARGE)
    assert decode_result(own.run(plain("GET", keys.result(delivery.task_id)))).payload == LARGE


def test_who_waits_for_a_dropped_result_is_told_so(server, own, keys):
    with Streamwork("own", server.url) as app:
        shout = app.task(name="shout")(lambda: "x" * 2048)

        async def main():
            async with EmbeddedWorker(app, {"worker.slots": 1, "liveness.ttl_s": 5}):
                own.run(plain("SET", keys.nearly_full, "1", "PX", 60_000))
                handle = await shout.aenqueue()
                with pytest.raises(ResultGone, match="dropped, since Redis was nearly full"):
                    await handle.aresult(10)
                assert await handle.astate() == "succeeded"
                await app.aclose()

        asyncio.run(main())
