"""Later, and not too late: never early, by any worker, taken back, expired, over a crash and a restart (P7)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from streamwork.errors import TaskFailed
from tests.apps import faults
from tests.helpers import wait_until
from tests.system.kit import successes


def begun(look):
    """Return (due, begun) of what succeeded, ms: the lane entry's instant is when it was promoted."""
    return {record.id: record.started_at_ms for record in look().journal if record.state == "succeeded"}


def test_nothing_is_early_whatever_the_span(start, send, look, driver):
    worker = start()
    sent = [(driver.server_ms(), delay, send(faults.nothing, 1, delay=delay)) for delay in (0.05, 0.3, 0.7, 0.3)]
    assert [handle.result(timeout=15) for _, _, handle in sent] == [1] * 4
    entries = {handle.id: handle for _, _, handle in sent}
    at = begun(look)
    assert set(at) == set(entries)
    # One machine, one clock: the instant that Redis gave and the one that the worker noted can be compared.
    assert all(at[handle.id] >= before + delay * 1000 for before, delay, handle in sent)
    assert worker.process.poll() is None


def test_a_delayed_message_is_in_redis_only_and_survives_whoever_would_send_it_on(start, send, look):
    first = start()
    handle = send(faults.nothing, 2, delay=2.0)
    assert (handle.state(), handle.entry) == ("scheduled", "")
    first.kill()
    assert look().due == {handle.id: look().due[handle.id]}
    start()
    assert handle.result(timeout=20) == 2
    assert successes(look()) == {handle.id: 1}


def test_an_instant_that_is_past_runs_now(start, send):
    start()
    assert send(faults.nothing, 3, run_at=datetime.now(UTC) - timedelta(hours=1)).result(timeout=10) == 3


def test_an_earlier_one_wakes_the_promoter(start, send):
    start()
    send(faults.nothing, 1, delay=3600)
    assert send(faults.nothing, 4, delay=0.2).result(timeout=10) == 4


def test_what_waits_for_its_time_can_be_taken_back(start, send, look):
    handle = send(faults.nothing, 1, delay=3600)
    assert handle.cancel() == "cancelled"
    assert (look().due, look().due_body, handle.state()) == ({}, {}, "cancelled")


def test_what_has_not_begun_in_time_does_not(start, send, look):
    late, soon = send(faults.nothing, 1, expires=0.05), send(faults.nothing, 2, expires=3600)
    wait_until(lambda: datetime.now(UTC).timestamp() * 1000 > int(late.entry.partition("-")[0]) + 100, "it to expire")
    start()
    with pytest.raises(TaskFailed, match="it had not begun in time") as caught:
        late.result(timeout=10)
    assert (caught.value.state, late.state(), soon.result(timeout=10)) == ("expired", "expired", 2)
    assert look().counts["expired"] == 1
    assert successes(look()) == {soon.id: 1}


def test_many_at_one_instant_all_run_once(start, app, send, look):
    start()
    task = send.declared(faults.nothing).options(delay=0.5)
    handles = app.enqueue_many(task.call(number) for number in range(1200))
    assert [handle.result(timeout=30) for handle in handles] == list(range(1200))
    assert set(successes(look()).values()) == {1}
