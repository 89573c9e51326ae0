"""Rule 7: strict priorities with a bound: the lowest lane moves, and takes no more than its part."""

from __future__ import annotations

from streamwork.worker.consumer import Consumer
from tests.faults.proof import must_fail
from tests.faults.reader import without
from tests.helpers import await_until
from tests.redis.kit import put
from tests.runtime.kit import with_reader

COUNT = 1_500


def order_of(consumer, connected, own, keys, low, starve_ms):
    """Return the levels in which a process with one slot ran what there was, as they came."""
    for start in range(0, COUNT, 500):
        put(own, keys, min(500, COUNT - start), "2:")
    put(own, keys, low, "0:")
    levels = []

    async def main(at):
        reader = at.reader
        reader.max_starve_ms = starve_ms
        reader._room = reader.free_slots = lambda: 1
        reader._accept = lambda run: levels.append(run.lane.level)
        at.start()
        await await_until(lambda: len(levels) >= COUNT, "most of it has run", 60)

    with_reader(connected, keys, main, "2:", "0:", slots=1, consumer=consumer)
    return levels


def lowest_moves(consumer, connected, own, keys):
    levels = order_of(consumer, connected, own, keys, 1, starve_ms=100)
    assert 0 in levels[:COUNT], "the lowest lane waits until there is nothing above it"


def test_the_lowest_lane_moves_under_load_above_it(connected, own, own_keys):
    lowest_moves(Consumer, connected, own, own_keys)


def test_without_the_upside_down_read_it_starves(connected, own, own_keys):
    match, consumer = "the lowest lane waits", without("starvation_sweep")
    must_fail("starvation_sweep", match, lowest_moves, consumer, connected, own, own_keys)


def highest_leads(consumer, connected, own, keys):
    levels = order_of(consumer, connected, own, keys, 400, starve_ms=-2)  # as if it starved all the time
    assert 0 in levels[:COUNT]
    assert levels[:400].count(0) <= 44, "the lowest lane takes more than one read in ten"


def test_a_starved_lane_takes_one_read_in_ten(connected, own, own_keys):
    highest_leads(Consumer, connected, own, own_keys)


def test_without_a_bound_it_takes_all(connected, own, own_keys):
    match, consumer = "more than one read in ten", without("upside_down_rarely")
    must_fail("upside_down_rarely", match, highest_leads, consumer, connected, own, own_keys)


def test_once_it_starves_a_lane_is_served_within_ten_reads_each_time(connected, own, own_keys):
    """Counted in reads, so that the speed of the machine says nothing: A16."""
    levels = order_of(Consumer, connected, own, own_keys, 100, starve_ms=-2)
    served = [at for at, level in enumerate(levels) if level == 0]
    assert len(served) == 100
    assert max(after - before for before, after in zip([0, *served], served, strict=False)) <= 10
