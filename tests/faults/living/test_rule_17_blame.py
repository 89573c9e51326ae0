"""Rule 17: a crash is blamed on what had started, counts survive retries, the last strike is surely one's own."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace

import pytest

from streamwork import Retry
from streamwork.clock import SYSTEM_CLOCK
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.wire.message import Attempt
from streamwork.worker import consumer, endings, runner
from streamwork.worker.delivery import QueueSide, Run
from streamwork.worker.drain import Hand
from streamwork.worker.intake import Intake
from streamwork.worker.slot_table import SlotTable
from tests.faults.living.kit import must_fail
from tests.faults.unguarded import module_without
from tests.helpers import state_of
from tests.redis.kit import LANE, deliver, put, settle
from tests.runtime.kit import Bench


def bench_of(module=runner):
    """A bench whose steps are those of this module."""
    bench = Bench()
    bench.runner = module.Runner(bench.app.tasks, bench.table, lambda run, item: bench.settled.append((run, item)))
    bench.task = bench.app.task(name="t", retry=Retry(max_attempts=9, base=0, jitter=False))(lambda: None)
    return bench


def only_what_had_started_is_blamed(driver, keys):
    _, second, _ = deliver(driver, keys, "w1", 3)
    driver.run(scripts.take(keys, LANE, "w1", mode="dead", evidence="signal 9", started=[second.entry]))
    suspects = state_of(driver, keys).suspects
    assert suspects == {f"{LANE}/{second.entry.decode()}": "1,0,signal 9"}, "what had not started is blamed"
    deliver(driver, keys, "w2", 2)
    driver.run(scripts.take(keys, LANE, "w2", mode="leave"))
    assert state_of(driver, keys).suspects == suspects, "who left in order is blamed"


def test_only_what_had_started_is_blamed_and_nobody_who_left_in_order(driver, keys):
    only_what_had_started_is_blamed(driver, keys)


def test_without_a_look_at_what_had_started_the_innocent_are_blamed(unguarded, keys):
    must_fail(only_what_had_started_is_blamed, unguarded("blame"), keys, says="had not started is blamed")


def a_start_is_seen_by_the_supervisor(module=runner):
    bench = bench_of(module)
    run = bench.admitted(bench.task)
    bench.runner.start(run, 0)
    assert [one.entry for one in bench.table.started()] == [run.entry], "nobody would know what had killed the process"


def test_a_start_is_seen_by_the_supervisor():
    a_start_is_seen_by_the_supervisor()


def test_without_the_note_nobody_knows_what_killed_the_process():
    module = module_without("streamwork.worker.runner", "noted start")
    must_fail(a_start_is_seen_by_the_supervisor, module, says="nobody would know")


def crashes_before_a_retry_count(module=runner, carry=endings):
    bench = bench_of(module)
    bench.runner.endings = carry.Endings(lambda run, item: bench.settled.append((run, item)), bench.runner.now_ms)
    run = bench.delivery(bench.task, attempt=Attempt(attempt=1, crashes=1))
    run.attempt = Attempt(crashes=1)  # what a reclaim says of it
    assert bench.runner.decode(run)
    assert run.attempt.crashes == 2, "a crash from before the retry is forgotten"
    assert bench.runner.admit(run)
    bench.runner.raised(run, ValueError("once more"))
    assert bench.end_of(run).attempt == Attempt(attempt=2, crashes=2), "a retry washes the crashes off"


def test_crashes_before_a_retry_count():
    crashes_before_a_retry_count()


def test_without_the_record_a_retry_washes_them_off():
    module = module_without("streamwork.worker.runner", "counts read")
    must_fail(crashes_before_a_retry_count, module, says="from before the retry is forgotten")
    module = module_without("streamwork.worker.endings", "counts carried")
    must_fail(crashes_before_a_retry_count, runner, module, says="washes the crashes off")


def a_suspect_is_set_aside(module=runner):
    bench, begun = bench_of(module), []
    intake = Intake(Hand(), bench.table, 4, None)
    intake.runner, intake.executors = bench.runner, SimpleNamespace(submit=begun.append)
    reclaimer = SimpleNamespace(suspects=deque())
    intake.consumer = SimpleNamespace(reclaimer=reclaimer, poke=lambda: None)
    neighbour, suspect = bench.delivery(bench.task), bench.delivery(bench.task)
    suspect.attempt, suspect.is_suspect = Attempt(crashes=2), True
    intake.accept(neighbour)
    intake.accept(suspect)
    assert begun == [neighbour], "what may die for the last time runs beside others"
    assert list(reclaimer.suspects) == [suspect]


def test_what_may_die_for_the_last_time_is_set_aside():
    a_suspect_is_set_aside()


def test_without_it_a_neighbour_may_be_blamed_for_the_last_strike():
    module = module_without("streamwork.worker.runner", "set aside")
    must_fail(a_suspect_is_set_aside, module, says="runs beside others")


def it_waits_for_its_turn(url, driver, keys, module=consumer):
    (suspected,) = deliver(driver, keys, "w1")
    put(driver, keys)

    async def main():
        drivers = [AsyncDriver(Endpoint(url), ALL_SCRIPTS) for _ in range(2)]
        side, table, taken, running = QueueSide(keys, 0), SlotTable(4), [], [1]
        side.set_lanes([LANE])
        table.beat_at_ms = SYSTEM_CLOCK.steady_ms()
        reader = module.Consumer("w1", [side], *drivers, table, lambda: 4 - len(taken), taken.append)
        reader.in_hand, reader.block_ms = lambda: len(running), 20
        reader.reclaimer.suspects.append(Run(side.lanes[0], suspected.entry, [b"d", suspected.body], "w1", "server"))
        turn = asyncio.create_task(reader._turn())
        await asyncio.wait({turn}, timeout=0.5)
        assert taken == [], "a suspect runs beside what was there before it"
        running.clear()
        turn.cancel()
        await asyncio.wait({turn})
        await reader._turn()
        assert [run.entry for run in taken] == [suspected.entry]
        for one in drivers:
            await one.close()
        table.close()

    asyncio.run(main())


def test_a_suspect_waits_until_nothing_runs(redis_url, driver, keys):
    it_waits_for_its_turn(redis_url, driver, keys)


def test_without_the_wait_it_runs_beside_others(redis_url, driver, keys, wiped):
    module = module_without("streamwork.worker.consumer", "alone")
    must_fail(it_waits_for_its_turn, redis_url, driver, keys, module, says="beside what was there before")


def enough_is_enough(past, reason, module=runner):
    bench = bench_of(module)
    run = bench.delivery(bench.task)
    run.attempt, run.stop_reason = past, "signal 9"
    assert bench.runner.decode(run)
    assert not bench.runner.admit(run), f"after {past.crashes} crashes and {past.lost} losses it runs once more"
    assert bench.end_of(run).letter.reason == reason
    assert "signal 9" in bench.end_of(run).letter.failure.message


ENOUGH = [("quarantine", Attempt(crashes=3), "quarantined"), ("lost", Attempt(lost=10), "lost")]


@pytest.mark.parametrize(("guard", "past", "reason"), ENOUGH)
def test_after_three_crashes_or_ten_losses_it_runs_no_more(guard, past, reason):
    enough_is_enough(past, reason)
    few = Attempt(crashes=max(0, past.crashes - 1), lost=max(0, past.lost - 1))
    must_fail(enough_is_enough, few, reason, says="runs once more")


@pytest.mark.parametrize(("guard", "past", "reason"), ENOUGH)
def test_without_a_bound_it_kills_for_ever(guard, past, reason):
    module = module_without("streamwork.worker.runner", guard)
    must_fail(enough_is_enough, past, reason, module, says="runs once more")


def each_delivery_is_told_from_all_others(driver, keys):
    (old,) = deliver(driver, keys, "w1")
    driver.run(scripts.take(keys, LANE, "w1", mode="leave"))
    (again,) = driver.run(scripts.adopt(keys, LANE, "w1", 1))  # by the same one, which had lost track of it
    assert not settle(driver, keys, old, "R"), "the retry of an earlier delivery counts"
    assert settle(driver, keys, old._replace(count=again.delivered), "R")


def test_each_delivery_is_told_from_all_others(driver, keys):
    each_delivery_is_told_from_all_others(driver, keys)


def test_with_a_count_that_falls_an_earlier_one_reschedules(unguarded, keys):
    must_fail(each_delivery_is_told_from_all_others, unguarded("fence"), keys, says="an earlier delivery counts")
