"""Outcomes on their way to Redis: together, each exactly once, and one bad one does not hold up the others."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.errors import StoreRejected, StoreUnavailable
from streamwork.spool import Spooled
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.wire.message import decode_failure
from streamwork.worker.delivery import LaneSide, QueueSide, Run
from streamwork.worker.settle import Settler
from tests.helpers import await_until
from tests.redis.kit import calls_of, deliver, end


class Failing:
    """A driver that answers the first settles with errors."""

    def __init__(self, driver, *errors):
        self.driver = driver
        self.errors = list(errors)
        self.sent = []

    @property
    def run_id(self):
        return self.driver.run_id

    async def connect(self):
        await self.driver.connect()

    async def run(self, command):
        self.sent.append(command)
        if self.errors:
            error = self.errors.pop(0)
            if error is not None:
                raise error
        return await self.driver.run(command)


@pytest.fixture
def settling(connected, keys):
    """Run a test with a settler, a way to make runs, and what was told about ends."""

    def run(main, *errors):
        async def all_of_it():
            own = connected()
            await own.connect()
            driver = Failing(own, *errors)
            told = []
            settler = Settler(driver, lambda run, item, committed: told.append((run, committed)))
            loop = asyncio.create_task(settler.run())
            lane = LaneSide(QueueSide(keys, 0), "1:")

            def add(delivery, op="S", **options):
                run = Run(lane, delivery.entry, [b"d", delivery.body], delivery.consumer, own.run_id)
                run.count = delivery.count
                settler.add(run, end(keys, delivery, op, **options))
                return run

            try:
                await main(settler, add, told, driver)
                settler.close()
                await asyncio.wait_for(loop, 10)
            finally:
                loop.cancel()
                await own.close()

        asyncio.run(all_of_it())

    return run


def test_what_gathers_while_one_settle_is_on_its_way_goes_as_one(driver, keys, look, settling):
    held = deliver(driver, keys, "c", 200)
    before = calls_of(driver, "evalsha")

    async def main(settler, add, told, own):
        for delivery in held:
            add(delivery)
        assert settler.unsent == 200
        await await_until(lambda: len(told) == 200, "all are told")
        assert (settler.unsent, settler.unsent_bytes) == (0, 0)
        assert all(committed for _, committed in told)

    settling(main)
    assert calls_of(driver, "evalsha") - before <= 3
    assert look().counts == {"succeeded": 200}


def test_a_chunk_is_bounded(driver, keys, look, settling):
    held = deliver(driver, keys, "c", 1_200)

    async def main(settler, add, told, own):
        for delivery in held:
            add(delivery)
        await await_until(lambda: len(told) == 1_200, "all are told")
        assert len(own.sent) >= 3

    settling(main)
    assert look().counts == {"succeeded": 1_200}


@pytest.mark.parametrize("bad", [[0], [7], [0, 3, 4, 19]], ids=str)
def test_one_that_cannot_be_written_becomes_a_dead_letter_and_its_neighbours_are_settled(
    driver, keys, look, settling, bad
):
    held = deliver(driver, keys, "c", 20)

    async def main(settler, add, told, own):
        runs = [add(delivery, keep_ms="nonsense" if n in bad else 60_000) for n, delivery in enumerate(held)]
        await await_until(lambda: len(told) == 20, "all are told")
        assert told == [(run, True) for run in runs]

    settling(main)
    state = look()
    assert state.counts == {"succeeded": 20 - len(bad), "dead": len(bad)}
    assert set(state.dead) == {held[n].task_id for n in bad}
    for task_id, letter in state.dead.items():
        assert (letter.reason, letter.failure.type_name) == ("settle_error", "SettleError")
        assert "SETTLE-NUMBER" in letter.failure.message
        assert letter.body == next(delivery.body for delivery in held if delivery.task_id == task_id)
        assert decode_failure(state.results[task_id].payload).type_name == "SettleError"


def test_a_retry_that_cannot_be_written_becomes_a_dead_letter_too(driver, keys, look, settling):
    (delivery,) = deliver(driver, keys, "c")

    async def main(settler, add, told, own):
        add(delivery, "R", run_at="nonsense")
        await await_until(lambda: told, "it is told")

    settling(main)
    assert (list(look().dead), look().due, look().in_flight) == ([delivery.task_id], {}, 0)


def test_where_not_even_the_dead_letter_can_be_written_the_entry_stays_pending_and_the_rest_goes_on(
    driver, keys, look, settling
):
    held = deliver(driver, keys, "c", 3)
    refused = StoreRejected("no")

    async def main(settler, add, told, own):
        for delivery in held:
            add(delivery)
        await await_until(lambda: len(told) == 3, "all are told")
        assert sorted(committed for _, committed in told) == [False, True, True]
        assert settler.unsent_bytes == 0

    # The chunk of three; its first half of one; that one's dead letter.
    settling(main, refused, refused, refused)
    assert look().in_flight == 1


def test_outcomes_wait_for_a_redis_that_is_away_and_are_sent_once_it_is_back(driver, keys, look, settling):
    held = deliver(driver, keys, "c", 5)
    away = StoreUnavailable("away")

    async def main(settler, add, told, own):
        for delivery in held:
            add(delivery)
        await await_until(lambda: len(own.sent) >= 1, "it tried")
        assert settler.unsent == 5
        assert len(settler.pending()) == 5
        await await_until(lambda: len(told) == 5, "all are told")

    settling(main, away, away, away)
    assert look().counts == {"succeeded": 5}


def test_a_lost_lease_is_told(driver, keys, settling):
    first, second = deliver(driver, keys, "c", 2)
    driver.run(scripts.take(keys, "1:", "c", mode="leave"))
    (adopted,) = driver.run(scripts.adopt(keys, "1:", "other", 1))
    assert adopted.entry == first.entry

    async def main(settler, add, told, own):
        runs = [add(first, "R"), add(second, "S")]
        await await_until(lambda: len(told) == 2, "both are told")
        # Nobody else has ended the second one: its result counts.
        assert told == [(runs[0], False), (runs[1], True)]

    settling(main)


def test_on_another_server_the_message_itself_is_checked(driver, keys, look, settling):
    (delivery,) = deliver(driver, keys, "c")

    async def main(settler, add, told, own):
        run = add(delivery)
        run.server = "another run id"
        await await_until(lambda: told, "it is told")
        assert told == [(run, True)]
        assert any(b"S!" in str(command.args).encode() for command in own.sent)

    settling(main)


def test_closing_sends_what_is_left_first(driver, keys, look, settling):
    held = deliver(driver, keys, "c", 50)

    async def main(settler, add, told, own):
        for delivery in held:
            add(delivery)
        settler.close()

    settling(main)
    assert look().counts == {"succeeded": 50}


def test_what_is_taken_for_the_spool_is_not_sent(driver, keys, look, settling):
    held = deliver(driver, keys, "c", 3)

    async def main(settler, add, told, own):
        for delivery in held:
            add(delivery)
        left = settler.take_unsent()
        assert [item.entry for _, item in left] == [delivery.entry for delivery in held]
        assert (settler.unsent, settler.unsent_bytes) == (0, 0)

    settling(main)
    assert driver.run(plain("XLEN", keys.journal)) == 0


@pytest.mark.parametrize(("server", "is_same"), [("another run id", False), ("", True)], ids=["another", "the same"])
def test_what_an_earlier_process_left_is_settled_carefully_on_another_server(
    driver, keys, look, settling, server, is_same
):
    held, other = deliver(driver, keys, "c", 2)
    foreign = end(keys, held._replace(task_id=other.task_id))  # there the entry is another message's

    async def main(settler, add, told, own):
        item = Spooled("default", "c", server or own.run_id, foreign)
        assert await settler.settle_spooled(keys.namespace, [item]) == []

    settling(main)
    assert look().in_flight == (1 if is_same else 2)


def test_one_spooled_outcome_that_is_refused_does_not_keep_the_others(driver, keys, look, settling):
    held = deliver(driver, keys, "c", 3)
    items = [end(keys, delivery, keep_ms="nonsense" if n == 1 else 60_000) for n, delivery in enumerate(held)]

    async def main(settler, add, told, own):
        outcomes = [Spooled("default", "c", own.run_id, item) for item in items]
        (refused,) = await settler.settle_spooled(keys.namespace, outcomes)
        assert "SETTLE-NUMBER" in str(refused)

    settling(main)
    assert (look().counts, look().in_flight) == ({"succeeded": 2}, 1)


def test_a_settler_that_was_cancelled_goes_on_where_it_was(driver, keys, look, connected):
    held = deliver(driver, keys, "c", 3)

    async def main():
        own, told = connected(), []
        await own.connect()
        settler = Settler(Failing(own, *[StoreUnavailable("away")] * 3), lambda run, item, ok: told.append(ok))
        lane = LaneSide(QueueSide(keys, 0), "1:")
        loop = asyncio.create_task(settler.run())
        for delivery in held:
            settler.add(Run(lane, delivery.entry, [], "c", own.run_id), end(keys, delivery))
        await await_until(lambda: settler._sending, "they are on their way")
        loop.cancel()
        await asyncio.wait({loop})
        assert settler.unsent == 3
        settler.close()
        await asyncio.wait_for(settler.run(), 10)
        await own.close()
        assert (told, settler.unsent, settler.unsent_bytes) == ([True] * 3, 0, 0)

    asyncio.run(main())
    assert look().counts == {"succeeded": 3}
