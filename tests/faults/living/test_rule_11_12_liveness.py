"""Rules 11 and 12: known before it reads, told when it was declared dead, and silent once its word is old."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from streamwork import clock as clock_module
from streamwork.clock import SYSTEM_CLOCK
from streamwork.store import scripts
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.worker import consumer, embedded, keeper
from streamwork.worker import worker as worker_module
from streamwork.worker.delivery import QueueSide
from streamwork.worker.liveness import Beat
from streamwork.worker.slot_table import SlotTable
from tests.apps import faults
from tests.faults.living.kit import CONFIG, facts_of, must_fail, on_loop, owners_of
from tests.faults.unguarded import module_without
from tests.helpers import await_until
from tests.redis.kit import LANE, deliver, put, take
from tests.runtime.kit import FakeMember


def who_registers_is_not_taken(driver, keys):
    driver.run(scripts.register(keys, "w1", b"", 60_000))
    deliver(driver, keys, "w1")
    take(driver, keys, "w1")
    assert owners_of(driver, keys) == {"w1": 1}, "a consumer that has just registered is taken for dead"


def test_who_registers_is_not_taken(driver, keys):
    who_registers_is_not_taken(driver, keys)


def test_without_a_life_from_the_start_it_is(unguarded, keys):
    must_fail(who_registers_is_not_taken, unguarded("registration"), keys, says="has just registered is taken")


def may_read_only_once_registered(url, driver, keys, module):
    known = []

    class Reader(FakeMember):
        def beaten(self, at_ms):
            known.append(driver.run(plain("HEXISTS", keys.consumers, self.name)) == 1)

    async def main():
        make = lambda deadline_s: AsyncDriver(Endpoint(url), ALL_SCRIPTS, deadline_s)
        keeping = module.Keeper(keys.namespace, CONFIG, [keys.queue], make, "supervisor")
        await keeping.start()
        try:
            await keeping.add(Reader("w1"), b"{}")
        finally:
            await keeping.stop()

    asyncio.run(main())
    assert all(known), "a process may read before Redis knows it"
    assert known


def test_it_may_read_only_once_it_is_registered(redis_url, driver, keys):
    may_read_only_once_registered(redis_url, driver, keys, keeper)


def test_in_the_other_order_it_reads_unknown(redis_url, driver, keys, wiped):
    module = module_without("streamwork.worker.keeper", "registered first")
    must_fail(may_read_only_once_registered, redis_url, driver, keys, module, says="before Redis knows it")


def the_declared_dead_are_told(url, driver, keys):
    members = {name: FakeMember(name) for name in ("taken", "late")}
    for name in members:
        driver.run(scripts.register(keys, name, b"", 60_000))
        deliver(driver, keys, name)
        driver.run(plain("DEL", keys.alive(name)))
    taken, late = members.values()
    take(driver, keys, "taken")
    on_loop(url, lambda own: Beat(own, CONFIG, [facts_of(keys)], members).tick())
    assert taken.told == ["fenced"], "a consumer whose work was given away lives on"
    assert late.told == ["beaten"], "a consumer that nobody took is declared dead"


def test_the_declared_dead_are_told_and_the_late_live_on(redis_url, driver, keys):
    the_declared_dead_are_told(redis_url, driver, keys)


@pytest.mark.parametrize(("guard", "says"), [("fenced", "given away lives on"), ("revived", "nobody took is declared")])
def test_without_an_answer_to_a_late_beat_they_are_not(redis_url, unguarded, keys, guard, says):
    must_fail(the_declared_dead_are_told, redis_url, unguarded(guard), keys, says=says)


def fenced_it_begins_anew(app, driver, keys, worker_class=embedded.EmbeddedWorker):
    lost = []

    @app.task(name="watch_lease")
    async def watch_lease(ctx: faults.Context) -> None:
        await await_until(lambda: ctx.lease_lost, "the lease is lost", 5)
        lost.append(1)

    async def main():
        worker = worker_class(app, {"worker.slots": 2, "liveness.ttl_s": 1, "worker.block_s": 0.1})
        await worker.start()
        before = worker.worker.name
        try:
            await watch_lease.aenqueue()
            await await_until(lambda: worker.worker.in_hand, "it runs")
            driver.run(scripts.take(keys, LANE, before, mode="leave"))
            await await_until(lambda: driver.run(plain("HLEN", keys.consumers)) == 1, "it is registered again")
            (name,) = driver.run(plain("HKEYS", keys.consumers))
            assert name.decode() != before, "a name that was declared dead lives again"
            await await_until(lambda: lost, "its run is told", 3)
        finally:
            await worker.stop(now=True)
            await app.aclose()

    asyncio.run(main())


def test_who_was_fenced_begins_anew_and_its_runs_are_told(app, driver, keys):
    fenced_it_begins_anew(app, driver, keys)


def test_under_the_old_name_the_dead_would_live_again(app, driver, keys, wiped):
    module = module_without("streamwork.worker.embedded", "incarnation")
    must_fail(fenced_it_begins_anew, app, driver, keys, module.EmbeddedWorker, says="lives again")


def test_without_the_mark_a_run_does_not_learn_that_its_lease_is_lost(app, driver, keys, wiped, monkeypatch):
    module = module_without("streamwork.worker.worker", "lease lost")
    monkeypatch.setattr(embedded, "Worker", module.Worker)
    assert embedded.Worker is not worker_module.Worker
    must_fail(fenced_it_begins_anew, app, driver, keys, says="its run is told")


def reads_only_while_its_beat_is_young(url, driver, keys, module=consumer):
    put(driver, keys)

    async def main():
        drivers = [AsyncDriver(Endpoint(url), ALL_SCRIPTS) for _ in range(2)]
        side, table, taken = QueueSide(keys, 0), SlotTable(1), []
        side.set_lanes([LANE])
        reader = module.Consumer("w1", [side], *drivers, table, lambda: 1 - len(taken), taken.append)
        for age_ms, expected in ((reader.half_ttl_ms + 1, 0), (0, 1)):
            table.beat_at_ms = SYSTEM_CLOCK.steady_ms() - age_ms
            await reader._turn()
            assert len(owners_of(driver, keys)) == expected, "it reads although its last beat is old"
            assert len(taken) == expected
        for one in drivers:
            await one.close()
        table.close()

    asyncio.run(main())


def test_it_reads_only_while_its_last_beat_is_young(redis_url, driver, keys):
    reads_only_while_its_beat_is_young(redis_url, driver, keys)


def test_without_a_look_at_its_beat_it_reads_on(redis_url, driver, keys, wiped):
    module = module_without("streamwork.worker.consumer", "young beat")
    must_fail(reads_only_while_its_beat_is_young, redis_url, driver, keys, module, says="its last beat is old")


def a_suspended_machine_makes_a_beat_old(monkeypatch, module=clock_module):
    suspended = SimpleNamespace(ns=0)
    real = time.clock_gettime_ns
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    if boot is None:
        pytest.skip("this system has no clock that counts suspended time")
    monkeypatch.setattr(time, "clock_gettime_ns", lambda which: real(which) + suspended.ns * (which == boot))
    beaten_at_ms = module.SYSTEM_CLOCK.steady_ms()
    suspended.ns = 3600 * 10**9
    age_ms = module.SYSTEM_CLOCK.steady_ms() - beaten_at_ms
    assert age_ms >= 3_600_000, "a beat from before an hour's sleep counts as young"


def test_a_suspended_machine_makes_a_beat_old(monkeypatch):
    a_suspended_machine_makes_a_beat_old(monkeypatch)


def test_another_clock_would_not_see_the_sleep(monkeypatch):
    module = module_without("streamwork.clock", "boot clock")
    must_fail(a_suspended_machine_makes_a_beat_old, monkeypatch, module, says="counts as young")
