"""Schedules while Redis loses everything, is away, or is not there yet (rule 27)."""

from __future__ import annotations

import signal

import pytest

from streamwork.store.commands import plain
from tests.helpers import wait_until
from tests.redis.kit import mark_of
from tests.system.planning import SECOND_MS, TICK


@pytest.fixture
def streamwork_redis_url(server):
    """These tests hurt the whole server."""
    return server.url


@pytest.fixture
def redis_url(server):
    return server.url


def test_declared_ones_come_back_after_all_is_lost(planned, app, driver, keys):
    planned.start("one")
    scheduler = planned.start("one", command="scheduler")
    app.schedules.add("added", app.call(TICK, "x"), every=1, elsewhere=True)
    planned.until("added", 1)
    planned.until("one", 1)
    driver.run(plain("FLUSHALL"))
    lost_at = driver.server_ms()
    wait_until(lambda: driver.run(plain("HKEYS", keys.schedules)) == [b"one"], "what stands in code is there again", 20)
    assert int(mark_of(driver, keys, "one").split()[0]) >= lost_at  # it begins anew
    wait_until(lambda: planned.occurrences("one")[-1] > lost_at + 2 * SECOND_MS, "it fires", 30)
    assert all(run.server_ms >= run.at_ms for run in planned.ran())
    scheduler.signal()
    assert scheduler.wait() == 0


def test_one_that_was_removed_by_hand_comes_back_with_what_declares_it(planned, app, driver):
    planned.start("one")
    planned.until("one", 1)
    app.schedules.remove("one")
    removed_at = driver.server_ms()
    wait_until(lambda: planned.occurrences("one")[-1] > removed_at, "it fires again", 20)


def test_an_outage_costs_no_occurrence(planned, server):
    planned.start("one")
    scheduler = planned.start("one", command="scheduler")
    planned.until("one", 2)
    server.stop(signal.SIGKILL)
    scheduler.until("Redis is away")
    server.start()
    last = planned.occurrences("one")[-1]
    wait_until(lambda: planned.occurrences("one")[-1] > last + 3 * SECOND_MS, "it goes on", 30)
    ran = planned.occurrences
    wait_until(
        lambda: ran("one") == list(range(ran("one")[0], ran("one")[-1] + 1, SECOND_MS)), lambda: f"all: {ran('one')}"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_scheduler_ends_while_redis_is_away(planned, server, number):
    scheduler = planned.start("one", command="scheduler")
    server.stop(signal.SIGKILL)
    scheduler.until("Redis is away")
    scheduler.signal(number)
    assert scheduler.wait() == (130 if number == signal.SIGINT else 0)
    server.start()


def test_a_scheduler_waits_for_a_redis_that_is_not_there_yet(planned, server, driver, keys):
    server.stop()
    patient = planned.start("one", command="scheduler", ready=False)
    hasty = planned.start("one", command="scheduler", ready=False)
    for scheduler in (patient, hasty):
        scheduler.until("waiting for Redis")
    hasty.signal()
    assert hasty.wait() == 0
    server.start()
    patient.until("scheduler ready")
    wait_until(lambda: driver.run(plain("HKEYS", keys.schedules)) == [b"one"], "it declares")
    patient.signal()
    assert patient.wait() == 0
