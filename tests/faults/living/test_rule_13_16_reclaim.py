"""Rules 13 to 16: who is dead is found, nobody else is taken, and what was given back is adopted first."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from streamwork import settings
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import load
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.worker import consumer, liveness
from streamwork.worker.delivery import QueueSide
from streamwork.worker.slot_table import SlotTable
from tests.faults.living.kit import CONFIG, facts_of, must_fail, on_loop, owners_of
from tests.faults.unguarded import module_without
from tests.helpers import body_of, seed, state_of, wait_until
from tests.redis.kit import LANE, bell, deliver, put, read, signals, take
from tests.runtime.kit import Bench

BLOCKING = load({"liveness.ttl_s": 1.0, "worker.block_s": 20}, environ={}).config


def reaping(url, driver, keys, module, work, config=CONFIG):
    """Run `await work(reaper)` with a reaper on duty, past the grace of its start."""

    async def main(own):
        reaper = module.Reaper(own, config, facts_of(keys), {}, "me")
        await reaper.tick()
        driver.run(plain("DEL", keys.grace))
        await work(reaper)

    on_loop(url, main)


async def look_twice(reaper):
    """Who is dead is taken at the second look: in between the living would have come back."""
    await reaper.tick()
    await reaper.tick()


def the_dead_are_found(url, driver, keys, module=liveness):
    driver.run(scripts.register(keys, "registered", b"", 60_000))
    driver.run(plain("DEL", keys.alive("registered")))
    for name in ("registered", "stray"):  # a stopped reader is still handed entries
        seed(driver, keys, body_of("t", name))
        read(driver, keys, name)
    reaping(url, driver, keys, module, look_twice)
    assert "registered" not in owners_of(driver, keys), "a registered dead one keeps its entries"
    assert "stray" not in owners_of(driver, keys), "a dead one that is not registered keeps its entries"


def test_the_dead_are_found_registered_or_not(redis_url, driver, keys):
    the_dead_are_found(redis_url, driver, keys)


@pytest.mark.parametrize(
    ("guard", "says"),
    [("seen in the lanes", "not registered keeps"), ("seen in the list", "registered dead one")],
)
def test_by_one_of_the_lists_alone_they_are_not(redis_url, driver, keys, wiped, guard, says):
    module = module_without("streamwork.worker.liveness", guard)
    must_fail(the_dead_are_found, redis_url, driver, keys, module, says=says)


def nobody_is_taken_once_the_pulse_has_lapsed(driver, keys):
    driver.run(scripts.register(keys, "w1", b"", 60_000))
    deliver(driver, keys, "w1")
    driver.run(scripts.pulse(keys, "reaper", 60_000, 1, 1_000))
    wait_until(lambda: not driver.run(plain("EXISTS", keys.grace)), "the grace of the start to end")
    # What a stall, or a clock set forward, does between the reaper's look and its taking: all lives end at once.
    driver.run(plain("DEL", keys.alive("w1"), keys.pulse))
    driver.run(scripts.take(keys, LANE, "w1", mode="reap"))
    assert owners_of(driver, keys) == {"w1": 1}, "a live one was taken after a stall in the middle of a look"


def test_nobody_is_taken_once_the_pulse_has_lapsed(driver, keys):
    nobody_is_taken_once_the_pulse_has_lapsed(driver, keys)


def test_without_a_look_at_the_pulse_they_are(unguarded, keys, wiped):
    must_fail(
        nobody_is_taken_once_the_pulse_has_lapsed, unguarded("pulse to take"), keys, says="in the middle of a look"
    )


def who_comes_back_with_the_next_beat_is_not_taken(url, driver, keys, module=liveness):
    driver.run(scripts.register(keys, "w1", b"", 60_000))
    deliver(driver, keys, "w1")

    async def work(reaper):
        driver.run(plain("DEL", keys.alive("w1")))  # renewed while the clock was set back, and that is over
        await reaper.tick()
        driver.run(scripts.revive(keys, "w1", 60_000))
        await reaper.tick()

    reaping(url, driver, keys, module, work)
    assert owners_of(driver, keys) == {"w1": 1}, "a live one was taken before its next beat"


def test_who_comes_back_with_the_next_beat_is_not_taken(redis_url, driver, keys):
    who_comes_back_with_the_next_beat_is_not_taken(redis_url, driver, keys)


def test_at_the_first_look_it_is(redis_url, driver, keys, wiped):
    module = module_without("streamwork.worker.liveness", "two looks at the dead")
    must_fail(who_comes_back_with_the_next_beat_is_not_taken, redis_url, driver, keys, module, says="its next beat")


def nobody_is_taken_because_redis_stood_still(server, driver, life=settings.LivenessConfig):
    keys, times = QueueKeys("own", "default"), life(ttl_s=0.6)
    driver.run(scripts.pulse(keys, "reaper", times.pulse_ms, 1, times.near_ms))
    wait_until(lambda: not driver.run(plain("EXISTS", keys.grace)), "the grace of the start to end")
    driver.run(scripts.register(keys, "w1", b"", times.ttl_ms))
    deliver(driver, keys, "w1")
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(1.1 * times.ttl_s)  # the stall itself: longer than a life, so every beat is late
    os.kill(server.pid, signal.SIGCONT)
    driver.run(scripts.pulse(keys, "reaper", times.pulse_ms, times.ttl_ms, times.near_ms))
    take(driver, keys, "w1")
    assert owners_of(driver, keys) == {"w1": 1}, "a live worker was taken because Redis stood still"
    assert driver.run(scripts.revive(keys, "w1", times.ttl_ms)) == "revived"


def test_nobody_is_taken_because_redis_stood_still(server, own):
    nobody_is_taken_because_redis_stood_still(server, own)


@pytest.mark.parametrize("guard", ["pulse", "grace"])
def test_without_pulse_and_grace_the_living_are_taken(server, unguarded, guard):
    driver = unguarded(guard, url=server.url)
    must_fail(nobody_is_taken_because_redis_stood_still, server, driver, says="because Redis stood still")


def test_a_pulse_that_outlives_the_workers_notices_nothing(server, own):
    life = module_without("streamwork.settings", "pulse life").LivenessConfig
    must_fail(nobody_is_taken_because_redis_stood_still, server, own, life, says="because Redis stood still")


def a_reaper_waits_after_a_lapse(url, driver, keys, module=liveness):
    driver.run(scripts.register(keys, "w1", b"", 60_000))
    deliver(driver, keys, "w1")
    driver.run(plain("DEL", keys.alive("w1"), keys.pulse))  # all lives lapsed at once

    async def main(own):
        await look_twice(module.Reaper(own, CONFIG, facts_of(keys), {}, "me"))

    on_loop(url, main)
    assert owners_of(driver, keys) == {"w1": 1}, "a reaper took somebody in the tick of a lapse"


def test_a_reaper_waits_after_a_lapse_and_the_script_would_see_to_it_alone(redis_url, driver, keys):
    a_reaper_waits_after_a_lapse(redis_url, driver, keys)
    driver.run(plain("DEL", keys.lane(LANE), keys.grace))
    module = module_without("streamwork.worker.liveness", "pause after a lapse")
    a_reaper_waits_after_a_lapse(redis_url, driver, keys, module)


def test_without_pause_and_grace_it_does_not_wait(redis_url, unguarded, keys):
    module = module_without("streamwork.worker.liveness", "pause after a lapse")
    driver = unguarded("grace")
    must_fail(a_reaper_waits_after_a_lapse, redis_url, driver, keys, module, says="in the tick of a lapse")


def the_living_are_not_taken(driver, keys):
    driver.run(scripts.register(keys, "w1", b"", 60_000))
    deliver(driver, keys, "w1")
    take(driver, keys, "w1")
    assert owners_of(driver, keys) == {"w1": 1}, "a live worker was taken"


def test_the_living_are_not_taken_whatever_a_reaper_thinks(driver, keys):
    the_living_are_not_taken(driver, keys)


def test_without_a_look_at_their_life_they_are(unguarded, keys):
    must_fail(the_living_are_not_taken, unguarded("alive"), keys, says="a live worker was taken")


def only_what_the_dead_own_is_moved(driver, keys):
    deliver(driver, keys, "dead", 2)
    deliver(driver, keys, "w2", 2)
    take(driver, keys, "dead")
    assert owners_of(driver, keys) == {"returned": 2, "w2": 2}, "a reaper took from a live owner"


def test_only_what_the_dead_own_is_moved(driver, keys):
    only_what_the_dead_own_is_moved(driver, keys)


def test_without_the_owner_check_the_living_lose_theirs(unguarded, keys):
    must_fail(only_what_the_dead_own_is_moved, unguarded("taken from the dead"), keys, says="took from a live owner")


def a_zombie_gives_nothing_back(driver, keys):
    (old,) = deliver(driver, keys, "zombie")
    take(driver, keys, "zombie")
    driver.run(scripts.adopt(keys, LANE, "w2", 1))
    assert driver.run(scripts.release(keys, LANE, "zombie", [(old.entry, old.count)])) == 0, "a zombie gave it away"
    assert owners_of(driver, keys) == {"w2": 1}


def test_a_zombie_gives_nothing_back(driver, keys):
    a_zombie_gives_nothing_back(driver, keys)


def test_without_the_owner_check_it_does(unguarded, keys):
    must_fail(a_zombie_gives_nothing_back, unguarded("given back by its owner"), keys, says="a zombie gave it away")


def what_is_marked_is_told(driver, keys):
    deliver(driver, keys, "dead", 2)
    driver.run(plain("DEL", keys.bell(LANE)))
    take(driver, keys, "dead")
    told = (state_of(driver, keys).returned, signals(driver, keys)[-1], bell(driver, keys))
    assert told == ({LANE}, ("returned", LANE), 1), "nobody hears of what the dead have left"


def test_what_is_marked_is_told_and_rung_for(driver, keys):
    what_is_marked_is_told(driver, keys)


def test_without_a_word_nobody_would_look(unguarded, keys):
    must_fail(what_is_marked_is_told, unguarded("rung for"), keys, says="nobody hears")


def a_name_takes_no_work_along(driver, keys):
    deliver(driver, keys, "w1")
    driver.run(scripts.drop_consumer(keys, LANE, "w1"))
    assert owners_of(driver, keys) == {"w1": 1}, "an entry went with its owner's name"


def test_a_name_takes_no_work_along(driver, keys):
    a_name_takes_no_work_along(driver, keys)


def test_without_a_look_at_what_it_owns_it_does(unguarded, keys):
    must_fail(a_name_takes_no_work_along, unguarded("empty"), keys, says="went with its owner's name")


def a_blocked_read_of_the_dead_hides_nothing(url, driver, keys, module=liveness):
    deliver(driver, keys, "dead")
    link = SyncDriver(Endpoint(url), ALL_SCRIPTS)
    command = scripts.read_new([(keys.lane(LANE),)], "dead", 1, 20_000)
    blocked = threading.Thread(target=link.run, args=(command,))
    blocked.start()
    clients = lambda: driver.run(plain("CLIENT", "LIST")).decode()
    wait_until(lambda: "cmd=xreadgroup" in clients(), "the dead one waits in a read")

    async def work(reaper):
        for _ in range(3):
            await reaper.tick()
        put(driver, keys)  # handed to the read of the dead, which makes its name again
        blocked.join()
        for _ in range(3):
            await reaper.tick()

    try:
        reaping(url, driver, keys, module, work, BLOCKING)
    finally:
        blocked.join()
        link.close()
    assert owners_of(driver, keys) == {"returned": 2}, "what a blocked read of the dead was handed stays with it"


def test_what_a_blocked_read_of_the_dead_was_handed_is_found_soon(redis_url, driver, keys):
    a_blocked_read_of_the_dead_hides_nothing(redis_url, driver, keys)


def test_if_its_name_went_at_once_it_would_not_be_looked_for(redis_url, driver, keys, wiped):
    module = module_without("streamwork.worker.liveness", "one block later")
    must_fail(a_blocked_read_of_the_dead_hides_nothing, redis_url, driver, keys, module, says="stays with it")


def what_is_given_back_keeps_place_and_attempt(driver, keys):
    held = deliver(driver, keys, "w1", 3)
    assert driver.run(scripts.release(keys, LANE, "w1", [(d.entry, d.count) for d in held[:2]])) == 2
    rows = driver.run(scripts.adopt(keys, LANE, "w2", 10))
    assert [row.entry for row in rows] == [d.entry for d in held[:2]], "what was given back lost its place"
    assert {row.suspicion for row in rows} == {None}
    for row in rows:
        run = Bench().raw(row.fields)
        assert run.attempt.attempt == 1


def test_what_is_given_back_keeps_its_place_and_counts_no_attempt(driver, keys):
    what_is_given_back_keeps_place_and_attempt(driver, keys)


def test_sent_anew_it_would_not(unguarded, keys):
    must_fail(what_is_given_back_keeps_place_and_attempt, unguarded("in place"), keys, says="lost its place")


def long_tasks_are_never_taken(driver, keys):
    (mine,) = deliver(driver, keys, "dead")
    (long,) = deliver(driver, keys, "w9")
    claim = ("XCLAIM", keys.lane(LANE), "workers", "w9", 0, long.entry, "IDLE", 86_400_000, "JUSTID")
    driver.run(plain(*claim))  # as after a day of work, or of a Redis that was down
    take(driver, keys, "dead")
    rows = driver.run(scripts.adopt(keys, LANE, "w2", 10))
    assert long.entry not in [row.entry for row in rows], "a long task was taken from its live owner"
    assert [row.entry for row in rows] == [mine.entry]


def test_long_tasks_are_never_taken_however_idle_their_entries_look(driver, keys):
    long_tasks_are_never_taken(driver, keys)


def test_by_idle_time_they_are(unguarded, keys):
    must_fail(long_tasks_are_never_taken, unguarded("adopted by owner"), keys, says="from its live owner")


def given_back_before_new(url, driver, keys, module=consumer):
    (old,) = deliver(driver, keys, "dead")
    (new,) = put(driver, keys)
    take(driver, keys, "dead")

    async def main():
        drivers = [AsyncDriver(Endpoint(url), ALL_SCRIPTS) for _ in range(2)]
        side, table, taken = QueueSide(keys, 0), SlotTable(1), []
        side.set_lanes([LANE])
        side.returned.add(LANE)
        table.beat_at_ms = SYSTEM_CLOCK.steady_ms()
        reader = module.Consumer("w1", [side], *drivers, table, lambda: 1 - len(taken), taken.append)
        await reader._turn()
        for one in drivers:
            await one.close()
        table.close()
        return [run.entry for run in taken]

    assert asyncio.run(main()) == [old.entry], "new work ran before what a dead worker had left"
    assert new.task_id


def test_what_was_given_back_comes_before_what_is_new(redis_url, driver, keys):
    given_back_before_new(redis_url, driver, keys)


def test_in_the_other_order_the_left_over_waits_for_ever(redis_url, driver, keys, wiped):
    module = module_without("streamwork.worker.consumer", "adopted first")
    must_fail(given_back_before_new, redis_url, driver, keys, module, says="new work ran before")
