"""Soft and hard limits and more time, in every executor, through real workers."""

from __future__ import annotations

import pytest

from streamwork import ConfigError, TaskFailed
from streamwork.ids import task_id_at_ms
from streamwork.wire.message import decode_message
from tests.apps import limits
from tests.helpers import wait_until
from tests.system.kit import is_gone

APP = "tests.apps.limits:app"


def test_a_hard_limit_kills_the_process_and_the_policy_decides(start, send, notes, look):
    """A12: time_limit=1 on a 60 s sleep."""
    start(APP, processes=1)
    handle = send(limits.sleep_in_process, notes.path, "sleeps")
    with pytest.raises(TaskFailed, match="not ended within 1 s; its process was killed") as caught:
        handle.result(timeout=30)
    assert (caught.value.type_name, caught.value.state) == ("TimeoutError", "dead")
    runs = notes.runs()
    assert [run.attempt for run in runs] == [1, 2]  # its policy: one more try
    wait_until(lambda: all(is_gone(run.pid) for run in runs), "both processes are gone", 3)
    state = look()
    assert [record.state for record in state.journal] == ["retried", "dead"]
    (letter,) = state.dead.values()
    assert (letter.reason, letter.failure.type_name) == ("failed", "TimeoutError")


@pytest.mark.parametrize("timeout", [0.05, 0.2])
def test_what_has_waited_three_times_its_limit_runs_all_the_same(start, send, notes, driver, timeout):
    """A11: a limit counts from the start of the body."""
    handle = (
        send.declared(limits.soft_in_thread).options(timeout=30, soft_timeout=timeout).enqueue(notes.path, "begins")
    )
    sent_at_ms = task_id_at_ms(handle.id)
    wait_until(lambda: driver.server_ms() > sent_at_ms + 3 * timeout * 1000, "three times the limit")
    start(APP, processes=1)
    assert handle.result(timeout=20) == "saved: soft_timeout"
    assert [run.text for run in notes.runs()] == ["begins", "soft"]


@pytest.mark.parametrize(
    "task", [limits.soft, limits.soft_in_thread, limits.soft_in_process], ids=["async", "thread", "process"]
)
def test_the_soft_limit_is_raised_in_the_body_which_may_end_well(start, send, notes, task):
    start(APP, processes=1)
    assert send(task, notes.path, "begins").result(timeout=20) == "saved: soft_timeout"
    assert [run.text for run in notes.runs()] == ["begins", "soft"]


def test_a_soft_limit_that_nobody_catches_is_a_failure_and_the_children_end(start, send, notes, look):
    start(APP, processes=1)
    handle = send(limits.soft_unheeded, notes.path, "begins", soft_timeout=0.2, timeout=30)
    with pytest.raises(TaskFailed, match="the soft time limit is reached") as caught:
        handle.result(timeout=20)
    assert caught.value.type_name == "streamwork.errors.SoftTimeout"
    assert [run.text for run in notes.runs()] == ["begins", "child"] * 2
    assert [record.state for record in look().journal] == ["retried", "dead"]


@pytest.mark.parametrize(
    "task", [limits.extend, limits.extend_in_thread, limits.extend_in_process], ids=["async", "thread", "process"]
)
def test_a_body_asks_for_more_time_and_gets_it(start, send, notes, task):
    start(APP, processes=1)
    assert send(task, notes.path, "asks").result(timeout=20) >= 1.5
    assert len(notes.runs()) == 1


def test_more_time_ends_too(start, send, notes):
    start(APP, processes=1)
    with pytest.raises(TaskFailed, match=r"not ended within 1(\.\d+)? s; its process was killed"):
        send(limits.extend_once_in_process, notes.path, "asks").result(timeout=20)


def test_nonsense_instead_of_a_span_is_an_error_in_the_body(start, send, notes):
    start(APP, processes=1)
    assert send(limits.extend_by_nonsense, notes.path, "asks").result(timeout=20) == ["ConfigError"] * 8


@pytest.mark.parametrize(
    "given",
    [
        {"soft_timeout": 2, "timeout": 1}, {"soft_timeout": 1, "timeout": 1}, {"soft_timeout": 0}, {"soft_timeout": -1},
        {"soft_timeout": "1"}, {"soft_timeout": float("nan")}, {"soft_timeout": 0.0001},
    ],
)  # fmt: skip
def test_a_soft_limit_out_of_range_is_an_error_at_the_caller(app, look, given):
    async def body() -> None: ...

    with pytest.raises(ConfigError, match="soft_timeout="):
        app.task(**given)(body)
    with pytest.raises(ConfigError, match="soft_timeout="):
        app.task(body).options(**given)
    assert look().added == {}


def test_a_hard_limit_below_the_tasks_soft_one_is_refused_too(app):
    @app.task(soft_timeout=5)
    async def body() -> None: ...

    with pytest.raises(ConfigError, match="soft_timeout=5: it has to be shorter than timeout=1"):
        body.options(timeout=1)
    assert body.options(timeout=1, soft_timeout=None).soft_timeout_s is None


def test_the_options_of_a_message_survive_its_retries(start, send, notes, look, driver, keys):
    """S21: soft limit, priority, headers (the whole body) and expiry are those of the first run."""
    handle = send(limits.fail_twice, notes.path, "f", soft_timeout=0.3, timeout=20, priority=9, expires=600, keep=500)
    before = decode_message(dict(look().lanes["3:"])[handle.entry]["d"])
    start(APP, processes=1)
    assert handle.result(timeout=20) == (3, "3:")  # the third run was ended by the soft limit, on the same lane
    entries = [fields for _, fields in look().lanes["3:"]]
    assert [decode_message(fields["d"]) for fields in entries] == [before] * 3
    options = before.options
    assert (options.soft_ms, options.timeout_ms, options.keep_ms) == (300, 20_000, 500_000)
    assert options.expires_at_ms is not None
