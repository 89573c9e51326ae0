"""Rule 21: a chunk of outcomes is written whole or not at all, and a bad one harms no other."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.errors import StoreError
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.worker import settle as settling
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import await_until, state_of
from tests.redis.kit import LANE, deliver, dump, end

MODULE = "streamwork.worker.settle"


def refused_whole(own, keys, chunk):
    before = dump(own, "own")
    try:
        own.run(scripts.settle(keys, "w1", chunk))
    except StoreError:
        assert dump(own, "own") == before, "a part of a chunk was written"
    else:
        raise AssertionError("a chunk that cannot be written was taken")


def foreign_key(own, keys):
    held = deliver(own, keys, "w1", 3)
    own.run(plain("SET", keys.dead_body, "foreign"))
    refused_whole(own, keys, [end(keys, delivery, op) for delivery, op in zip(held, "SDR", strict=True)])


def bad_number(own, keys):
    first, bad, last = deliver(own, keys, "w1", 3)
    refused_whole(own, keys, [end(keys, first), end(keys, bad, keep_ms="1.5"), end(keys, last)])


def bad_entry(own, keys):
    first, bad, last = deliver(own, keys, "w1", 3)
    refused_whole(own, keys, [end(keys, first), end(keys, bad)._replace(entry=b"5-x"), end(keys, last)])


def foreign_counter(own, keys):
    (delivery,) = deliver(own, keys, "w1")
    own.run(plain("SET", keys.counts, "foreign"))
    try:
        own.run(scripts.settle(keys, "w1", [end(keys, delivery)]))
    except StoreError:
        raise AssertionError("a counter broke an outcome off half-way") from None


SCENARIOS = {
    "types_first": (foreign_key, "a part of a chunk"),
    "numbers_first": (bad_number, "a part of a chunk"),
    "entries_first": (bad_entry, "a part of a chunk"),
    "telling_may_fail": (foreign_counter, "broke an outcome off"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_chunk_is_written_whole_or_not_at_all(own, own_keys, name):
    SCENARIOS[name][0](own, own_keys)


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_first_pass_a_part_of_it_is(own, own_keys, name):
    scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, own, own_keys)


def one_bad(module, connected, own, keys):
    held = deliver(own, keys, "w1", 20)

    async def main():
        driver, told = connected(), []
        await driver.connect()
        settler = module.Settler(driver, lambda run, item, committed: told.append(run.entry))
        lane = LaneSide(QueueSide(keys, 0), LANE)
        for n, delivery in enumerate(held):
            run = Run(lane, delivery.entry, [b"d", delivery.body], "w1", driver.run_id)
            settler.add(run, end(keys, delivery, keep_ms="1.5" if n == 7 else 60_000))
        loop = asyncio.create_task(settler.run())
        await await_until(lambda: len(told) == len(held) or loop.done(), "all are told")
        loop.cancel()
        await asyncio.wait({loop})
        await driver.close()

    asyncio.run(main())
    state = state_of(own, keys)
    assert state.counts.get("succeeded", 0) == 19, "a bad outcome took its neighbours along"
    assert [letter.reason for letter in state.dead.values()] == ["settle_error"], "a bad outcome is no dead letter"


def test_one_bad_outcome_is_a_dead_letter_and_harms_no_other(connected, own, own_keys):
    one_bad(settling, connected, own, own_keys)


@pytest.mark.parametrize(("name", "match"), [("bisect", "took its neighbours"), ("minimal_letter", "no dead letter")])
def test_without_that_they_are_lost(connected, own, own_keys, name, match):
    must_fail(name, match, one_bad, module_without(MODULE, name), connected, own, own_keys)
