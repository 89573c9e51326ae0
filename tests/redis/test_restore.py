"""restore.lua and who calls it: what was settled is not run again, and nothing else is lost (rule 8, P3)."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.store import healing, scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker.delivery import QueueSide
from streamwork.worker.healing import Healer
from tests.helpers import state_of
from tests.redis.kit import (
    LANE,
    bell,
    deliver,
    dump,
    end,
    owners,
    put,
    read,
    settle,
)
from tests.redis.lost import adopt, destroy, heal, maintain, note, restored


def test_each_message_is_committed_once_and_none_is_lost_under_a_held_back_oldest_entry(driver, keys, redis_url):
    held = deliver(driver, keys, "w1", 520)
    oldest, settled, in_hand = held[0], held[1:501], held[501:]
    ops = "SSKDC"
    chunk = [end(keys, d, ops[n % 5]) for n, d in enumerate(settled)]
    assert driver.run(scripts.settle(keys, "w1", chunk)) == []
    waiting = put(driver, keys, 20)
    maintain(driver, keys)
    before = state_of(driver, keys)
    assert before.undelivered + before.in_flight == 40
    destroy(driver, keys)
    heal(driver, keys)
    assert state_of(driver, keys).undelivered == 40  # on their way back, and never gone
    restored(redis_url, keys)
    assert note(driver, keys) is None
    state = state_of(driver, keys)
    assert (state.undelivered, state.in_flight, bell(driver, keys)) == (0, 40, 1)
    assert {owner for owner, _ in owners(driver, keys).values()} == {"returned"}
    again = adopt(driver, keys)
    expected = [oldest.task_id, *(d.task_id for d in in_hand), *(m.task_id for m in waiting)]
    assert [d.task_id for d in again] == expected
    assert [settle(driver, keys, d) for d in again] == [True] * 40
    assert read(driver, keys, "w2") == []
    state = state_of(driver, keys)
    assert sorted(r.id for r in state.journal) == sorted([d.task_id for d in held] + [m.task_id for m in waiting])
    assert state.backlog == 0


def test_a_loss_before_the_first_mark_runs_nothing_again_that_was_settled(driver, keys, redis_url):
    for delivery in deliver(driver, keys, "w1", 50):
        assert settle(driver, keys, delivery)
    assert driver.run(plain("EXISTS", keys.low)) == 0
    destroy(driver, keys)
    heal(driver, keys)
    restored(redis_url, keys)
    assert (note(driver, keys), adopt(driver, keys), read(driver, keys, "w2")) == (None, [], [])


def test_a_retried_entry_is_settled_and_only_its_next_one_runs(driver, keys, redis_url):
    first, second = deliver(driver, keys, "w1", 2)
    assert settle(driver, keys, first, "R", run_at=1)
    driver.run(scripts.promote(keys, [LANE], 10))
    destroy(driver, keys)
    heal(driver, keys)
    restored(redis_url, keys)
    assert [d.task_id for d in adopt(driver, keys)] == [second.task_id, first.task_id]


def test_what_was_in_hand_hears_that_it_is_lost_and_runs_again_under_another_fence(driver, keys, redis_url):
    (old,) = deliver(driver, keys, "w1")
    destroy(driver, keys)
    heal(driver, keys)
    assert not settle(driver, keys, old)
    restored(redis_url, keys)
    (new,) = adopt(driver, keys, "w1")
    assert new.entry == old.entry
    assert new.count > 1_000  # no delivery before the loss had this one
    assert not settle(driver, keys, old, "D")
    assert settle(driver, keys, new, "D")


@pytest.mark.parametrize("again", ["twice in a row", "while restoring", "after restoring"])
def test_a_group_lost_again_runs_each_message_once(driver, keys, redis_url, again):
    def lose():
        destroy(driver, keys)
        heal(driver, keys)

    held = deliver(driver, keys, "w1", 450)
    for delivery in held[1:430]:
        assert settle(driver, keys, delivery)
    maintain(driver, keys)
    expected = [held[0].task_id, *(d.task_id for d in held[430:])]
    lose()
    new = deliver(driver, keys, "w3", 3)
    assert settle(driver, keys, new[1])
    expected += [new[0].task_id, new[2].task_id]
    if again == "twice in a row":
        lose()
        restored(redis_url, keys)
    elif again == "while restoring":
        steps = []

        def lose_at_the_second():
            steps.append(note(driver, keys))
            if len(steps) == 2:
                done = adopt(driver, keys, "w4", 1)
                expected.remove(done[0].task_id)
                assert settle(driver, keys, done[0])
                lose()

        restored(redis_url, keys, ticks=2, between=lose_at_the_second)
        assert len(set(steps)) == len(steps) > 3
    else:
        restored(redis_url, keys)
        done = adopt(driver, keys, "w4", 5)
        for delivery in done:
            assert settle(driver, keys, delivery)
            expected.remove(delivery.task_id)
        lose()
        restored(redis_url, keys)
    ran = adopt(driver, keys)
    assert sorted(d.task_id for d in ran) == sorted(expected)
    assert all(settle(driver, keys, d) for d in ran)
    assert read(driver, keys, "w2") == []
    maintain(driver, keys)
    assert (state_of(driver, keys).backlog, note(driver, keys)) == (0, None)


def test_a_step_counts_only_while_the_note_is_the_one_that_was_read(driver, keys, namespace):
    put(driver, keys, 10)
    destroy(driver, keys)
    heal(driver, keys)
    first = note(driver, keys)
    last = first.split()[1]
    step = driver.run(healing.restore(keys, LANE, first, last, 4, []))
    assert (step.note, step.entries) == (note(driver, keys), 4)
    before = dump(driver, namespace)
    assert driver.run(healing.restore(keys, LANE, first, last, 4, [])) == (None, 0)
    assert dump(driver, namespace) == before
    second = driver.run(healing.restore(keys, LANE, step.note, last, 4, []))
    third = driver.run(healing.restore(keys, LANE, second.note, last, 4, []))
    assert (second.entries, third) == (4, (b"", 2))
    assert len(owners(driver, keys)) == 10


def test_a_restorer_that_stopped_is_gone_on_from_by_the_next(driver, keys, redis_url):
    held = deliver(driver, keys, "w1", 500)
    for delivery in held[::2]:
        assert settle(driver, keys, delivery)
    destroy(driver, keys)
    heal(driver, keys)
    steps = []

    def die():
        steps.append(1)
        if len(steps) == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        restored(redis_url, keys, between=die)
    assert note(driver, keys) is not None
    restored(redis_url, keys, on_duty=False)
    assert note(driver, keys) is not None
    restored(redis_url, keys)
    assert [d.task_id for d in adopt(driver, keys)] == [d.task_id for d in held[1::2]]


def test_what_somebody_has_is_not_taken_from_him(driver, keys):
    put(driver, keys, 2)
    destroy(driver, keys)
    heal(driver, keys)
    driver.run(plain("XGROUP", "SETID", keys.lane(LANE), "workers", "0"))
    held = read(driver, keys, "w1")
    first = note(driver, keys)
    assert driver.run(healing.restore(keys, LANE, first, first.split()[1], 10, [])) == (b"", 0)
    assert {owner for owner, _ in owners(driver, keys).values()} == {"w1"}
    assert all(settle(driver, keys, d) for d in held)


@pytest.mark.parametrize("garbage", [b"x", b"\xff\xfe y z", b"1 2", b"0 5-5 y"])
def test_a_note_that_is_not_ours_is_taken_away(driver, keys, redis_url, garbage):
    put(driver, keys)
    driver.run(plain("HSET", keys.restoring, LANE, garbage, b"\xff", garbage, "no lane", "0 9-9 7"))
    restored(redis_url, keys)
    assert driver.run(plain("EXISTS", keys.restoring)) == 0
    assert owners(driver, keys) == {}


def test_garbage_in_the_journal_is_passed_over(driver, keys, redis_url):
    held = deliver(driver, keys, "w1", 3)
    assert settle(driver, keys, held[0])
    driver.run(plain("XADD", keys.journal, "*", "j", b"\xff"))
    assert settle(driver, keys, held[2])
    destroy(driver, keys)
    heal(driver, keys)
    restored(redis_url, keys)
    assert [d.task_id for d in adopt(driver, keys)] == [held[1].task_id]
    driver.run(plain("DEL", keys.journal))


def test_while_a_lane_is_restored_nothing_of_it_moves_and_the_journal_is_needed_from_its_mark(driver, keys, redis_url):
    held = deliver(driver, keys, "w1", 10)
    for delivery in held[:9]:
        assert settle(driver, keys, delivery)
    first = held[0].entry
    destroy(driver, keys)
    assert maintain(driver, keys, "99999999999999") == (0, b"", first)
    heal(driver, keys)
    assert maintain(driver, keys, "99999999999999") == (0, b"", first)
    assert state_of(driver, keys).low == {}
    restored(redis_url, keys)
    assert maintain(driver, keys).first_open == held[9].entry
    (again,) = adopt(driver, keys)
    assert settle(driver, keys, again)
    assert maintain(driver, keys) == (0, again.entry, b"")


def test_a_reader_that_finds_nothing_asks_whether_something_is_on_its_way_back(driver, keys, redis_url):
    side = QueueSide(keys, 0)
    side.set_lanes([LANE])
    put(driver, keys)
    destroy(driver, keys)
    heal(driver, keys)

    async def main():
        own = AsyncDriver(Endpoint(redis_url), ALL_SCRIPTS)
        healer = Healer(own)
        assert await healer.is_restoring([side])
        driver.run(plain("DEL", keys.restoring))
        assert not await healer.is_restoring([side])
        driver.run(plain("SET", keys.restoring, "foreign"))
        assert not await healer.is_restoring([side])  # no longer in question
        healer.in_question = True
        assert not await healer.is_restoring([side])
        # The signal of the last step may come later than the look.
        driver.run(plain("DEL", keys.restoring))
        driver.run(plain("SADD", keys.returned, LANE))
        healer.in_question = True
        assert await healer.is_restoring([side])
        assert side.returned == {LANE}
        driver.run(plain("DEL", keys.returned))
        driver.run(plain("SET", keys.returned, "foreign"))
        healer.in_question = True
        assert not await healer.is_restoring([QueueSide(keys, 0)])
        driver.run(plain("DEL", keys.returned))
        await own.close()

    asyncio.run(main())
    driver.run(plain("DEL", keys.restoring))
