"""Rule 5: a process never has more in hand than slots, and what it has no slot for does not wait with it."""

from __future__ import annotations

from streamwork.store.commands import plain
from streamwork.worker.consumer import Consumer
from tests.faults.proof import must_fail
from tests.faults.reader import is_blocked, without
from tests.helpers import await_until, state_of
from tests.redis.kit import owners, put
from tests.runtime.kit import with_reader


def a_full_process_reads_nothing(consumer, connected, own, keys):
    put(own, keys, 3)

    async def main(at):
        at.taken.append(None)  # its one slot
        at.start()
        # It waits for room; where it does not, it has read in its first turn.
        await await_until(lambda: at.reader._waiting is not None or at.reader._reads > 1, "its first turn is over")

    with_reader(connected, keys, main, "1:", slots=1, consumer=consumer)
    assert state_of(own, keys).in_flight == 0, "delivered to a process without a free slot"


def test_a_process_without_a_free_slot_reads_nothing(connected, own, own_keys):
    a_full_process_reads_nothing(Consumer, connected, own, own_keys)


def test_without_the_reservation_it_reads(connected, own, own_keys):
    consumer = without("no_slot_no_read")
    match = "without a free slot"
    must_fail("no_slot_no_read", match, a_full_process_reads_nothing, consumer, connected, own, own_keys)


def several_lanes(consumer, connected, own, keys, most_touched=3):
    """Three lanes with three entries each, found by one read, for two slots."""
    lanes = ("2:", "1:", "0:")

    async def main(at):
        at.reader.is_idle = True  # it has looked already, so the next read is the blocking one
        for lane in lanes:
            put(own, keys, 3, lane)
        await at.reader._block(at.reader.lanes, 2)
        assert len(at.taken) <= 2, "more in hand than slots"

    with_reader(connected, keys, main, *lanes, slots=2, consumer=consumer)
    held = [owner for lane in lanes for owner, _ in owners(own, keys, lane).values()]
    assert held.count("me") <= 2, "what nobody here can begin waits here"
    assert len(held) <= most_touched, "one read moved more than an entry of each lane"


def test_a_read_of_several_lanes_keeps_what_it_has_slots_for(connected, own, own_keys):
    several_lanes(Consumer, connected, own, own_keys)


def test_without_release_the_excess_is_begun_or_waits(connected, own, own_keys):
    consumer = without("excess_released")
    must_fail("excess_released", "more in hand than slots", several_lanes, consumer, connected, own, own_keys)


def test_without_count_one_whole_lanes_go_round(connected, own, own_keys):
    consumer = without("count_one_over_lanes")
    must_fail("count_one_over_lanes", "more than an entry", several_lanes, consumer, connected, own, own_keys)


def test_the_slots_themselves_are_then_kept_by_the_release_alone(connected, own, own_keys):
    several_lanes(without("count_one_over_lanes"), connected, own, own_keys, most_touched=9)


def a_slot_taken_meanwhile(consumer, connected, own, keys):
    """While the blocking read waits, the audit finds an entry of this consumer and begins it."""

    async def main(at):
        at.start()
        await await_until(lambda: is_blocked(own), "it waits in its read")
        at.taken.append(None)
        put(own, keys, 1)
        await await_until(lambda: not at.reader._blocking, "the read has brought it")
        await await_until(lambda: at.reader._waiting is not None or len(at.taken) > 1, "it was begun or given back")
        assert len(at.taken) == 1, "one slot was given away twice"

    put(own, keys, 1)
    own.run(plain("XGROUP", "SETID", keys.lane("1:"), "workers", "$"))
    with_reader(connected, keys, main, "1:", slots=1, consumer=consumer)
    assert [owner for owner, _ in owners(own, keys).values()] == ["returned"]


def test_a_slot_is_looked_at_again_when_the_read_is_there(connected, own, own_keys):
    a_slot_taken_meanwhile(Consumer, connected, own, own_keys)


def test_without_that_it_is_given_away_twice(connected, own, own_keys):
    consumer = without("room_rechecked")
    must_fail("room_rechecked", "given away twice", a_slot_taken_meanwhile, consumer, connected, own, own_keys)
