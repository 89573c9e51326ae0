"""The reader of one process, with a real Redis: what it gives back, whom it leaves alone, and when it waits."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.worker.delivery import QueueSide, Run
from streamwork.worker.reclaimer import Reclaimer
from tests.helpers import await_until
from tests.redis.kit import deliver, put, read
from tests.runtime.kit import with_reader


@pytest.fixture
def reading(connected, keys):
    """Run a test with a reader named ``me`` of these lanes, which takes and never ends anything."""
    return lambda main, *lanes, slots=4: with_reader(connected, keys, main, *lanes, slots=slots)


def owners(look):
    """Return who has how many entries."""
    found = [owner for entries in look().pending.values() for owner, _ in entries.values()]
    return {owner: found.count(owner) for owner in found}


def blocked(driver, command):
    """Return how many clients wait in this command."""
    clients = driver.run(plain("CLIENT", "LIST")).decode().splitlines()
    return sum(f"cmd={command}" in client and "flags=b" in client for client in clients)


def test_what_a_read_brings_beyond_the_free_slots_is_given_back_at_once(driver, keys, look, reading):
    # COUNT is per stream: one read of three lanes brings three, for one slot (rule 5).
    for lane in ("2:", "1:", "0:"):
        put(driver, keys, 1, lane)

    async def main(own):
        assert await own.reader._read(own.reader.lanes, 1, None) == 3
        assert len(own.taken) == 1

    reading(main, "2:", "1:", "0:", slots=1)
    assert owners(look) == {"me": 1, "returned": 2}
    assert look().returned == {"1:", "0:"}


def test_what_was_adopted_while_the_slots_filled_up_is_given_back(driver, keys, look, reading):
    deliver(driver, keys, "me", 3)

    async def main(own):
        rooms = iter([3, 1])  # the reader has taken two while the audit's answer was on its way
        lanes = own.reader.lanes
        await own.reader.reclaimer.audit(lanes, "me", lambda: next(rooms), lambda *_: False, None)
        assert len(own.taken) == 1

    reading(main, "1:")
    assert owners(look) == {"me": 1, "returned": 2}


def test_a_reader_that_stops_rings_the_bell_that_woke_it_for_another_one(driver, keys, reading):
    deliver(driver, keys, "other")  # the lane is there, and has nothing new
    driver.run(plain("DEL", keys.bell("1:")))

    async def main(own):
        own.reader.use_bells, own.reader.block_ms = True, 20_000
        loop = own.start()
        await await_until(lambda: blocked(driver, "blpop"), "it waits for the bell")
        own.reader.stop()
        driver.run(plain("RPUSH", keys.bell("1:"), "1"))
        await asyncio.wait_for(loop, 10)
        assert own.taken == []

    reading(main, "1:")
    assert driver.run(plain("LRANGE", keys.bell("1:"), 0, -1)) == [b"1"]


def test_nothing_runs_beside_a_suspect_whoever_finds_it(driver, keys, reading):
    (suspected,) = deliver(driver, keys, "me")

    async def main(own):
        reader = own.reader
        suspect = Run(own.side.lanes[0], suspected.entry, [b"d", suspected.body], "me", "server")
        ended = []
        reader.in_hand = lambda: len(own.taken) - len(ended)
        reader.reclaimer.suspects.append(suspect)
        assert reader.room_beside("me") == 0
        own.start()
        await await_until(
            lambda: own.taken and reader._waiting is not None, "it runs, and the reader waits for its end"
        )
        put(driver, keys, 1)
        reader.poke()
        await await_until(lambda: reader._waiting is not None, "it waits again")
        assert own.taken == [suspect]
        assert (reader.room_beside("me"), reader.free_slots()) == (0, 3)
        ended.append(suspect)
        reader.poke()
        await await_until(lambda: len(own.taken) == 2, "the other one is read")
        assert reader.room_beside("me") == 2

    reading(main, "1:")


def test_a_lane_with_something_else_under_its_name_stops_no_other_lane(driver, keys, reading, caplog):
    put(driver, keys, 1, "2:")
    read(driver, keys, "other", lane="2:")
    driver.run(plain("DEL", keys.lane("2:")))
    driver.run(plain("SET", keys.lane("2:"), "x"))

    async def main(own):
        own.start()
        put(driver, keys, 1, "1:")
        await await_until(lambda: len(own.taken) == 1, "the other lane is read")
        assert [lane.name for lane in own.reader.lanes] == ["1:"]
        driver.run(plain("DEL", keys.lane("2:")))
        put(driver, keys, 1, "2:")
        assert await own.reader.set_aside_foreign()
        own.reader.poke()
        await await_until(lambda: len(own.taken) == 2, "it is read again")

    reading(main, "2:", "1:")
    assert caplog.text.count("a lane's key is no stream") == 1
    assert "reading refused" not in caplog.text


def test_a_reclaimer_takes_up_no_more_than_there_is_room_for_now(driver, keys, look, connected):
    deliver(driver, keys, "dead", 3)
    driver.run(scripts.take(keys, "1:", "dead", mode="leave"))

    async def main():
        own, taken = connected(), []
        side = QueueSide(keys, 0)
        side.set_lanes(["1:"])
        side.returned.add("1:")
        assert await Reclaimer(own, taken.append).adopt([side], "me", 3, lambda: 2)
        await own.close()
        assert len(taken) == 2

    asyncio.run(main())
    assert owners(look) == {"me": 2, "returned": 1}


def test_what_a_reader_lost_is_found_behind_thousands_that_wait_to_be_written(driver, keys, connected):
    *held, lost = deliver(driver, keys, "me", 2_101)
    places = {delivery.entry for delivery in held}

    async def main():
        own, taken = connected(), []
        side = QueueSide(keys, 0)
        side.set_lanes(["1:"])
        await Reclaimer(own, taken.append).audit(side.lanes, "me", lambda: 9, lambda _, entry: entry in places, None)
        await own.close()
        assert [run.entry for run in taken] == [lost.entry]

    asyncio.run(main())


def test_what_changes_while_it_looks_once_more_is_not_slept_over(driver, keys, reading):
    (given_back,) = deliver(driver, keys, "other")

    async def main(own):
        reader, look_once = own.reader, own.reader._read

        async def and_meanwhile(lanes, count, block_ms):
            found = await look_once(lanes, count, block_ms)
            if block_ms is None and not own.side.returned:
                driver.run(scripts.release(keys, "1:", "other", [(given_back.entry, 1)]))
                own.side.returned.add("1:")
                assert reader.interrupt() is None  # no read is blocked that could be woken
            return found

        reader._read, reader.block_ms = and_meanwhile, 20_000
        own.start()
        await await_until(lambda: [run.entry for run in own.taken] == [given_back.entry], "it is adopted", 10)

    reading(main, "1:")
