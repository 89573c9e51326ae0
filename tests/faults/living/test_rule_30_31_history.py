"""Rules 30 and 31: history never goes past what is unsettled; one old entry does not hold all of it back either."""

from __future__ import annotations

import asyncio

import pytest

from streamwork.store import healing, scripts
from streamwork.store.commands import plain
from streamwork.worker.embedded import EmbeddedWorker
from tests.faults.living.kit import must_fail
from tests.helpers import await_until, body_of, state_of
from tests.redis.kit import LANE, deliver, end, put, read, settle, take

ALL = "99999999999999"
FEW = healing.Bounds(entries=5)

pytestmark = pytest.mark.usefixtures("exact_trim")


def maintain(driver, keys, bounds=healing.BOUNDS, oldest=ALL):
    return driver.run(healing.maintain(keys, LANE, oldest, 10_000, 7, bounds))


def left(driver, keys):
    return [entry for entry, _ in driver.run(plain("XRANGE", keys.lane(LANE), "-", "+"))]


def nothing_unsettled_goes(driver, keys):
    held = deliver(driver, keys, "w1", 10)
    waiting = put(driver, keys, 3)
    for delivery in (*held[:4], *held[5:]):
        assert settle(driver, keys, delivery)
    maintain(driver, keys)
    assert held[4].entry in left(driver, keys), "an entry in hand was trimmed"
    assert settle(driver, keys, held[4])
    maintain(driver, keys)
    found = [delivery.task_id for delivery in read(driver, keys, "w2")]
    assert found == [message.task_id for message in waiting], "what nobody had read was trimmed"


def only_workers_bounds_it(driver, keys):
    held = deliver(driver, keys, "w1", 4)
    driver.run(plain("XGROUP", "CREATE", keys.lane(LANE), "zap", "0"))
    for delivery in held:
        assert settle(driver, keys, delivery)
    assert maintain(driver, keys).trimmed == 3, "another group holds history back"


def without_its_group_nothing_goes(driver, keys):
    put(driver, keys, 5)
    driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "workers"))
    driver.run(plain("XGROUP", "CREATE", keys.lane(LANE), "zap", "$"))
    maintain(driver, keys)
    assert len(left(driver, keys)) == 5, "a lane without its group was trimmed"


def test_nothing_unsettled_goes(driver, keys):
    nothing_unsettled_goes(driver, keys)


def test_without_the_safe_cut_work_goes(unguarded, keys):
    must_fail(nothing_unsettled_goes, unguarded("safe cut"), keys, says="in hand was trimmed")


@pytest.mark.parametrize("scenario", [only_workers_bounds_it, without_its_group_nothing_goes])
def test_only_the_group_of_workers_counts(driver, keys, scenario):
    scenario(driver, keys)


def test_if_any_group_counted_history_would_stay_or_work_would_go(unguarded, keys):
    driver = unguarded("bound by workers")
    must_fail(only_workers_bounds_it, driver, keys, says="holds history back")
    driver.run(plain("DEL", keys.lane(LANE)))
    must_fail(without_its_group_nothing_goes, driver, keys, says="without its group was trimmed")


def one_old_among_many(driver, keys, consumer="w1", settled=20):
    """Let one delivery be the oldest of many that are settled; returns it."""
    old, *rest = deliver(driver, keys, consumer, settled + 1)
    for delivery in rest:
        assert settle(driver, keys, delivery)
    return old


def old_work_survives_the_trim(driver, keys, give_up):
    old = one_old_among_many(driver, keys)
    assert maintain(driver, keys, FEW).trimmed == 20, "one old entry holds history back"
    assert old.entry not in left(driver, keys)
    give_up(driver, keys, old)
    driver.run(scripts.adopt(keys, LANE, "w2", 10))
    driver.run(scripts.promote(keys, [LANE], 10))
    again = read(driver, keys, "w2")
    assert [delivery.task_id for delivery in again] == [old.task_id], "a message went with its trimmed entry"
    assert settle(driver, keys, again[0], "Sm")
    state = state_of(driver, keys)
    assert (state.backlog, state.moved, state.suspects) == (0, {}, {})
    assert driver.run(plain("HLEN", keys.kept)) == 0


def die(driver, keys, old):
    assert take(driver, keys, "w1", evidence="vanished") == 1


def give_back(driver, keys, old):
    assert driver.run(scripts.release(keys, LANE, "w1", [(old.entry, old.count)])) == 1


def lose_track(driver, keys, old):
    driver.run(scripts.adopt(keys, LANE, "w1", 10, [(old.entry, old.count)]))


def lose_the_group(driver, keys, old):
    driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "workers"))
    driver.run(healing.heal(keys, LANE, 1))


GIVE_UP = [die, give_back, lose_track, lose_the_group]


@pytest.mark.parametrize("give_up", GIVE_UP)
def test_old_work_survives_the_trim_of_its_entry(driver, keys, give_up):
    old_work_survives_the_trim(driver, keys, give_up)


@pytest.mark.parametrize("guard", ["kept copy", "kept first"])
def test_without_its_copy_old_work_goes_with_its_entry(unguarded, keys, guard):
    must_fail(old_work_survives_the_trim, unguarded(guard), keys, die, says="went with its trimmed entry")


def test_without_copies_one_old_entry_holds_everything_back(unguarded, keys):
    must_fail(old_work_survives_the_trim, unguarded("kept"), keys, die, says="holds history back")


def test_a_fleet_runs_it_again_and_its_first_owner_is_refused(app, driver, keys):
    runs, go = [], asyncio.Event()

    @app.task(name="long")
    async def long(number: int) -> int:
        runs.append(number)
        await (go.wait() if number == 0 else asyncio.sleep(0))
        return len(runs)

    async def main():
        settled = []
        note = lambda run, item, committed: settled.append((run.message.id, committed))
        async with EmbeddedWorker(app, {"worker.slots": 4, "liveness.ttl_s": 1}, note) as worker:
            old = await long.aenqueue(0)
            await await_until(lambda: runs, "it runs")
            for handle in [await long.aenqueue(n) for n in range(1, 20)]:
                await handle.aresult(10)
            assert maintain(driver, keys, FEW).trimmed
            driver.run(scripts.take(keys, LANE, worker.worker.name, mode="leave"))  # as a reaper that was wrong
            await await_until(lambda: runs.count(0) == 2, "it runs again")
            go.set()
            assert await old.aresult(10) == 21
            await await_until(lambda: len(settled) == 21, "both have tried to end it")
            assert sorted(is_ours for task_id, is_ours in settled if task_id == old.id) == [False, True]
        await app.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("op", ["S", "S!", "R", "D"])
def test_its_live_owner_settles_it_and_its_copy_goes(driver, keys, op):
    old = one_old_among_many(driver, keys)
    maintain(driver, keys, FEW)
    assert driver.run(plain("HLEN", keys.kept)) == 1
    assert driver.run(scripts.settle(keys, "w1", [end(keys, old, op)])) == []
    assert driver.run(plain("HLEN", keys.kept)) == 0
    state = state_of(driver, keys)
    assert (state.in_flight, state.undelivered, list(state.due)) == (0, 0, [old.task_id] if op == "R" else [])


def test_a_cancellation_does_not_take_it_for_ended(driver, keys):
    old = one_old_among_many(driver, keys)
    maintain(driver, keys, FEW)
    cancel = scripts.cancel(keys, old.task_id, "me", b"t\nc\n", 1000, "r", lane=LANE, entry=old.entry.decode())
    assert driver.run(cancel) == "requested"
    assert settle(driver, keys, old)
    assert driver.run(cancel) == "ended"
    assert state_of(driver, keys).cancelled == {}


def test_a_foreign_message_under_its_id_is_not_taken_for_it(driver, keys):
    old = one_old_among_many(driver, keys)
    maintain(driver, keys, FEW)
    other = old._replace(task_id=body_of("t")[0])
    assert driver.run(scripts.settle(keys, "w1", [end(keys, other, "S!")])) == [0]
    assert settle(driver, keys, old)


def test_only_what_is_older_than_retention_is_copied_and_only_of_a_large_lane(driver, keys):
    old = one_old_among_many(driver, keys)
    assert maintain(driver, keys, FEW, oldest=old.entry.decode()).trimmed == 0
    assert maintain(driver, keys, FEW, oldest="0").trimmed == 0
    assert maintain(driver, keys).trimmed == 0
    assert driver.run(plain("HLEN", keys.kept)) == 0
    assert maintain(driver, keys, healing.Bounds(entry_bytes=1000)).trimmed == 20
    assert settle(driver, keys, old)


def test_many_old_ones_are_copied_some_at_a_time_and_what_holds_nothing_back_stays(driver, keys):
    held = deliver(driver, keys, "w1", 300)
    for delivery in held[250:]:
        assert settle(driver, keys, delivery)
    for copied in (100, 200, 250):
        maintain(driver, keys, FEW)
        assert driver.run(plain("HLEN", keys.kept)) == copied
    assert left(driver, keys) == [held[-1].entry]
    assert maintain(driver, keys, FEW).low == held[-1].entry
    for delivery in held[:250]:
        assert settle(driver, keys, delivery)
    assert state_of(driver, keys).backlog == 0


def test_garbage_is_not_copied_and_holds_history_back(driver, keys):
    put(driver, keys)
    garbage = driver.run(plain("XADD", keys.lane(LANE), "*", "d", b"\xc1rubbish"))
    driver.run(scripts.read_new([(keys.lane(LANE),)], "w1", 10, None))
    for delivery in deliver(driver, keys, "w1", 20):
        assert settle(driver, keys, delivery)
    maintain(driver, keys, FEW)
    assert driver.run(plain("HLEN", keys.kept)) == 1
    assert garbage in left(driver, keys)


def test_the_maintainer_keeps_history_for_its_time_and_its_bounds_are_those_of_the_rule():
    assert healing.Bounds() == (100_000, 64 * 1024 * 1024, 0)
