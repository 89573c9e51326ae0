"""Rule 6: nobody sleeps beside work, and a wake-up that was lost costs one BLOCK."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.worker.consumer import Consumer
from tests.faults.proof import must_fail
from tests.faults.reader import is_blocked, without
from tests.helpers import await_until
from tests.redis.kit import bell, deliver, put, signals
from tests.runtime.kit import with_reader

LONG_MS = 20_000


@pytest.fixture
def idle(connected, own, own_keys):
    """Run `main` with a reader that waits for its bell, and wakes by itself only after `block_ms`."""

    def run(consumer, main, block_ms=LONG_MS, slots=4):
        deliver(own, own_keys, "other")  # the lane is there, and has nothing new
        own.run(plain("DEL", own_keys.bell("1:")))

        async def with_bells(at):
            at.reader.use_bells, at.reader.block_ms = True, block_ms
            at.loop = at.start()
            await await_until(lambda: is_blocked(own, "blpop"), "it waits for the bell")
            await main(at)

        with_reader(connected, own_keys, with_bells, "1:", slots=slots, consumer=consumer)

    return run


def rung(idle, own, keys, within_s=10.0):
    async def main(at):
        put(own, keys, 1)
        await await_until(lambda: at.taken, "an idle worker hears of new work", within_s)

    idle(Consumer, main)


def test_an_idle_worker_hears_of_new_work(idle, own, own_keys):
    rung(idle, own, own_keys)


def test_without_a_bell_it_sleeps_on(idle, own, own_keys):
    must_fail("bell_rung", "an idle worker hears", rung, idle, own, own_keys, within_s=1.0)


def rung_on(consumer, idle, own, keys):
    async def main(at):
        put(own, keys, 3)
        await await_until(lambda: len(at.taken) == 1, "it takes what it has a slot for")
        await await_until(lambda: at.reader._waiting is not None, "its turn is over")

    idle(consumer, main, slots=1)
    assert bell(own, keys) == 1, "nobody else hears of what is left"


def test_who_leaves_work_rings_for_another_one(idle, own, own_keys):
    rung_on(Consumer, idle, own, own_keys)


def test_without_that_the_others_sleep_on(idle, own, own_keys):
    must_fail("bell_rerung", "nobody else hears", rung_on, without("bell_rerung"), idle, own, own_keys)


def rung_at_stop(consumer, idle, own, keys):
    async def main(at):
        at.reader.stop()
        own.run(plain("RPUSH", keys.bell("1:"), "1"))
        await asyncio.wait_for(at.loop, 10)
        assert at.taken == []

    idle(consumer, main)
    assert bell(own, keys) == 1, "the bell woke one who stops, and nobody else"


def test_who_stops_rings_for_another_one(idle, own, own_keys):
    rung_at_stop(Consumer, idle, own, own_keys)


def test_without_that_the_wake_up_is_lost(idle, own, own_keys):
    match, consumer = "one who stops", without("bell_rerung_at_stop")
    must_fail("bell_rerung_at_stop", match, rung_at_stop, consumer, idle, own, own_keys)


def lost_wake_up(consumer, idle, own, keys, within_s=10.0):
    async def main(at):
        own.run(plain("XADD", keys.lane("1:"), "*", "d", "x"))  # an entry for which nobody rang
        await await_until(lambda: at.taken, "a lost wake-up costs one BLOCK", within_s)

    idle(consumer, main, block_ms=200)


def test_a_lost_wake_up_costs_one_block(idle, own, own_keys):
    lost_wake_up(Consumer, idle, own, own_keys)


def test_without_a_bound_it_costs_all_there_is(idle, own, own_keys):
    consumer = without("bell_block_bound")
    must_fail("bell_block_bound", "costs one BLOCK", lost_wake_up, consumer, idle, own, own_keys, within_s=1.5)


def new_lane(own, keys):
    put(own, keys, 1)
    put(own, keys, 1, "3:gpu")
    assert signals(own, keys) == [("lane", "1:"), ("lane", "3:gpu")], "nobody is told of a new lane"


def test_everybody_is_told_of_a_new_lane(own, own_keys):
    new_lane(own, own_keys)


def test_without_the_signal_nobody_is(own, own_keys):
    must_fail("new_lane_told", "nobody is told", new_lane, own, own_keys)


def changed(consumer, connected, own, keys, within_s=10.0):
    """Something is given back between the look after some work and the blocking read, when there is none yet to wake.

    At its first look a reader also asks whether something is on its way back, so that one would not show it.
    """
    (given_back,) = deliver(own, keys, "other")

    async def main(at):
        reader, look_once = at.reader, at.reader._read

        async def and_meanwhile(lanes, count, block_ms):
            found = await look_once(lanes, count, block_ms)
            if block_ms is None and at.taken and not at.side.returned:
                own.run(scripts.release(keys, "1:", "other", [(given_back.entry, 1)]))
                at.side.returned.add("1:")
                assert reader.interrupt() is None
            return found

        reader._read, reader.block_ms = and_meanwhile, LONG_MS
        at.start()
        await await_until(lambda: is_blocked(own), "it waits in its read")
        put(own, keys, 1)
        await await_until(lambda: len(at.taken) == 2, "what changed meanwhile is seen", within_s)

    with_reader(connected, keys, main, "1:", consumer=consumer)


def test_what_changes_before_the_read_blocks_is_seen(connected, own, own_keys):
    changed(Consumer, connected, own, own_keys)


def test_without_that_it_is_slept_over(connected, own, own_keys):
    consumer = without("changed_meanwhile")
    must_fail("changed_meanwhile", "is seen", changed, consumer, connected, own, own_keys, within_s=1.0)
