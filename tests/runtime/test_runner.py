"""The steps of one delivery, one by one, with entries made by hand and without Redis."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from streamwork import Context, Reject, Retry, RetryLater, Skip
from streamwork.model.judge import Again
from streamwork.wire.codec import unpacker
from streamwork.wire.message import Attempt, Options
from streamwork.worker.drain import Hand
from streamwork.worker.intake import Intake

unpack = unpacker(object)
AT_ONCE = Retry(max_attempts=3, base=0, jitter=False)


@pytest.fixture
def task(bench):
    @bench.app.task(name="t", retry=Retry(max_attempts=3, base=1, factor=3, jitter=False), timeout=5, keep=60)
    async def body(number: int, ctx: Context) -> int:
        return number

    return body


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"d", b""],
        [b"d", b"\xc1"],
        [b"x", b"y"],
        [b"d", b"\x90", b"z", b"1"],
        [b"\xff", b"\xfe"],
    ],
    ids=range(6),
)
def test_what_cannot_be_read_is_a_dead_letter_with_its_bytes(bench, fields):
    run = bench.raw(fields)
    assert not bench.runner.decode(run)
    end = bench.end_of(run)
    assert (end.op, end.letter.reason, end.letter.id) == ("D", "undecodable", "entry-1:-1-0")
    assert all(part in end.letter.body for part in fields if len(part) > 1)


def test_the_past_comes_from_the_entry_and_adds_to_what_the_reclaim_said(bench, task):
    run = bench.delivery(task, 1, attempt=Attempt(attempt=2, crashes=1, lost=3))
    run.attempt = Attempt(crashes=1, lost=1)
    assert bench.runner.decode(run)
    assert run.attempt == Attempt(attempt=2, crashes=2, lost=4)
    assert run.was_moved


def test_only_what_may_die_for_the_last_time_runs_alone(bench, task):
    process = bench.app.task(name="p", executor="process")(lambda: None)
    table = [
        (task, 1, True, False), (task, 1, False, False), (task, 2, True, True), (task, 2, False, True),
        (process, 2, False, False), (process, 2, True, True), (process, 1, True, False),
    ]  # fmt: skip
    for kind, crashes, is_suspect, is_dangerous in table:
        run = bench.delivery(kind)
        run.attempt, run.is_suspect, run.task = Attempt(crashes=crashes), is_suspect, kind
        assert bench.runner.is_dangerous(run) == is_dangerous, (kind, crashes, is_suspect)


def test_what_has_ended_and_is_not_written_could_still_be_blamed(bench, task):
    intake = Intake(Hand(), bench.table, 4, None)
    intake.runner, intake.consumer = bench.runner, SimpleNamespace(poke=lambda: None)
    intake.executors = SimpleNamespace(submit=lambda run: bench.runner.start(run, intake.rows.popleft()))
    run = bench.delivery(task, 1)
    intake.accept(run)
    assert intake.blamable
    bench.runner.finished(run, 1)
    intake.freed(run)
    assert intake.blamable
    intake.settled(run, bench.settled[0][1], True)
    assert not intake.blamable


def test_an_unknown_task_waits_for_another_worker_longer_each_time(bench):
    waits = []
    for deferrals in (0, 1, 5, 6, 7, 100):
        run = bench.delivery("elsewhere", 1, attempt=Attempt(deferrals=deferrals))
        assert bench.runner.decode(run)
        now_ms = bench.runner.now_ms()
        assert not bench.runner.admit(run)
        end = bench.end_of(run)
        assert (end.op[0], end.attempt.attempt, end.attempt.deferrals) == ("R", 1, deferrals + 1)
        waits.append(round((end.run_at_ms - now_ms) / 1000))
    assert waits == [1, 2, 32, 60, 60, 60]


def test_after_a_day_an_unknown_task_is_dead(bench):
    run = bench.delivery("elsewhere", 1, attempt=Attempt(deferrals=1_446))
    assert bench.runner.decode(run)
    assert not bench.runner.admit(run)
    assert bench.end_of(run).letter.reason == "unknown_task"


def test_a_cancelled_message_is_ended_as_such(bench, task):
    run = bench.delivery(task, 1)
    assert bench.runner.decode(run)
    bench.queue.cancelled.add(run.message.id)
    assert not bench.runner.admit(run)
    assert bench.end_of(run).state == "cancelled"


@pytest.mark.parametrize(
    ("past", "reason"),
    [(Attempt(crashes=3), "quarantined"), (Attempt(lost=10), "lost"), (Attempt(crashes=2, lost=9), None)],
)
def test_what_kills_or_vanishes_too_often_does_not_run_again(bench, task, past, reason):
    run = bench.delivery(task, 1, attempt=past)
    run.stop_reason = "signal 9"
    assert bench.runner.decode(run)
    assert bench.runner.admit(run) == (reason is None)
    if reason:
        end = bench.end_of(run)
        assert end.letter.reason == reason
        assert "signal 9" in end.failure.message


def test_the_start_is_noted_where_the_supervisor_sees_it(bench, task):
    run = bench.admitted(task, 1)
    bench.runner.start(run, 2)
    assert [(started.entry, started.lane) for started in bench.table.started()] == [(run.entry, "1:")]


def test_arguments_are_typed_and_the_context_is_in_its_place(bench, task):
    by_name = bench.admitted(task, number=7)
    assert bench.runner.arguments(by_name) == ((), {"number": 7, "ctx": by_name.context})
    run = bench.admitted(task, 7, attempt=Attempt(attempt=2, crashes=1))
    (number, context), kwargs = bench.runner.arguments(run)
    assert (number, kwargs) == (7, {})
    assert (context.task_id, context.attempt, context.crashes) == (run.message.id, 2, 1)
    assert (context.queue, context.lane, context.task_name, context.fence) == ("default", "1:", "t", run.token)


def test_the_messages_own_options_beat_the_tasks(bench, task):
    assert bench.runner.timeout_s(bench.admitted(task, 1)) == 5
    own = bench.admitted(task, 1, options=Options(timeout_ms=250, keep_ms=0))
    assert bench.runner.timeout_s(own) == 0.25
    bench.runner.ended(own, b"\x01")
    assert bench.settled[-1][1].rest[1] == 0
    unlimited = bench.admitted(task, 1, options=Options(timeout_ms=0))
    assert bench.runner.timeout_s(unlimited) is None
    theirs = bench.admitted(task, 1)
    bench.runner.ended(theirs, b"\x01")
    assert bench.settled[-1][1].rest[1] == 60_000


@pytest.mark.parametrize(
    ("error", "past", "expected"),
    [
        (ValueError("no"), Attempt(), ("R", 2, 1_000)),
        (ValueError("no"), Attempt(attempt=2), ("R", 3, 3_000)),
        (ValueError("no"), Attempt(attempt=3), ("D", "failed", "ValueError")),
        (RetryLater(2), Attempt(), ("R", 2, 2_000)),
        (Reject("never"), Attempt(), ("D", "rejected", "Reject")),
        (Skip("enough"), Attempt(), ("K", "skipped", None)),
        (KeyboardInterrupt(), Attempt(), ("D", "failed", "KeyboardInterrupt")),
    ],
)
def test_what_the_body_raised_is_judged_and_settled(bench, task, error, past, expected):
    run = bench.admitted(task, 1, attempt=past)
    bench.runner.now_ms = lambda: 1_000_000
    bench.runner.raised(run, error)
    end = bench.end_of(run)
    assert end.op[0] == expected[0]
    if expected[0] == "R":
        assert (end.attempt.attempt, end.run_at_ms - 1_000_000) == expected[1:]
    elif expected[0] == "D":
        assert (end.letter.reason, end.failure.type_name) == expected[1:]
    else:
        assert end.state == expected[1]


def test_a_retry_keeps_the_message_byte_for_byte_and_its_crashes(bench, task):
    options = Options(timeout_ms=9, keep_ms=8, retry=(5, 0.0, 1.0, 0.0, False), headers={"trace": "x"})
    run = bench.admitted(task, number=3, options=options, reply_to="client", attempt=Attempt(crashes=1, round=2))
    bench.runner.raised(run, ValueError("again"))
    end = bench.end_of(run)
    assert (end.value, end.attempt) == (run.message, Attempt(attempt=2, crashes=1, round=2))
    assert bench.settled[-1][1].rest[1].endswith(run.fields[1])
    assert (end.value.options, end.value.reply_to) == (options, "client")


def test_the_messages_own_retry_counts_for_every_exception(bench, task):
    once = Options(retry=(1, 0.0, 1.0, 0.0, False))
    run = bench.admitted(task, 1, options=once)
    bench.runner.raised(run, ValueError("no"))
    assert bench.end_of(run).op == "D"


def test_a_crash_in_a_pool_process_counts_apart_and_ends_in_quarantine(bench, task):
    run = bench.admitted(task, 1, attempt=Attempt(attempt=2, crashes=1))
    bench.runner.crashed(run, "status 7")
    end = bench.end_of(run)
    assert (end.op[0], end.attempt) == ("R", Attempt(attempt=2, crashes=2))
    run = bench.admitted(task, 1, attempt=Attempt(attempt=2, crashes=2))
    bench.runner.crashed(run, "status 7")
    end = bench.end_of(run)
    assert (end.letter.reason, end.letter.attempt) == ("quarantined", "2,3,0,1,0")
    assert "status 7" in end.failure.message


def test_a_result_without_a_stored_form_is_a_failure_that_is_not_retried(bench, task):
    run = bench.admitted(task, 1)
    bench.runner.finished(run, object())
    end = bench.end_of(run)
    assert (end.letter.reason, end.failure.type_name) == ("failed", "streamwork.errors.WireError")


def test_success_goes_to_the_result_and_to_who_waits(bench, task):
    run = bench.admitted(task, 1, reply_to="client-1")
    bench.runner.finished(run, 7)
    assert unpack(bench.end_of(run).value) == 7
    item = bench.settled[-1][1]
    assert item.reply_key.endswith(":reply:client-1")
    assert item.result_key.endswith(run.message.id)


@pytest.mark.parametrize("text", ["\udcff", "a" * 100_000 + "\ud800", "\x00", "two\nlines"], ids=range(4))
def test_any_text_of_an_error_can_be_stored(bench, task, text):
    for error in (ValueError(text), Reject(text), Skip(text), RetryLater(0, text)):
        run = bench.admitted(task, 1, attempt=Attempt(attempt=1))
        bench.runner.raised(run, error)
        assert bench.end_of(run) is not None


def test_a_text_that_ends_the_process_when_asked_for_is_no_way_out(bench, task):
    class Rude(Exception):
        def __str__(self):
            raise SystemExit(3)

        __repr__ = __str__

    run = bench.admitted(task, 1, attempt=Attempt(attempt=3))
    bench.runner.raised(run, Rude())
    assert bench.end_of(run).failure.message == "<its text cannot be had: SystemExit>"


ID = "0198c0ffee007abc8def0123456789ab"


@pytest.mark.parametrize(
    ("body", "task", "reply"),
    [
        # What a sender once wrote for Retry(jitter=1), a newer version, and the least that has an id.
        ([1, ID, "t", [], None, {"m": [3, 1, 2, 600, 1]}, "client"], "t", "client"),
        ([99, ID, "t", {}, None, None, "client", "new"], "t", "client"),
        ([1, ID, 7, []], "", None),
        ([1, ID], "", None),
    ],
    ids=range(4),
)
def test_a_body_that_cannot_be_read_ends_under_its_id_where_that_can(bench, body, task, reply):
    packed = msgspec.msgpack.encode(body)
    for fields in ([b"d", packed], [b"d", packed, b"a", b"1,0,0,1,0"]):
        run = bench.raw(fields)
        assert not bench.runner.decode(run)
        end = bench.end_of(run)
        assert (end.state, end.letter.reason, end.letter.id, end.letter.task) == ("dead", "undecodable", ID, task)
        assert end.letter.body == packed
        item = bench.settled[-1][1]
        assert item.result_key.endswith(f":result:{ID}")
        assert item.reply_key == (reply and run.lane.queue.keys.reply(reply))


@pytest.mark.parametrize("task_id", ["", "x" * 32, ID[:-1], ID.upper(), 5, None, ID + "\n"], ids=repr)
def test_what_is_no_id_does_not_become_one(bench, task_id):
    run = bench.raw([b"d", msgspec.msgpack.encode([1, task_id, "t", [], None, {"m": 1}])])
    assert not bench.runner.decode(run)
    assert bench.end_of(run).letter.id == "entry-1:-1-0"


def test_an_end_that_cannot_be_written_down_is_a_dead_letter_that_says_why(bench, task, caplog):
    run = bench.admitted(task, 1)
    bench.runner.settle_verdict(run, Again("soon", "ValueError", "x"))
    end = bench.end_of(run)
    assert (end.letter.reason, end.failure.type_name) == ("failed", "TypeError")
    assert "an end could not be written down" in caplog.text


def test_the_log_of_a_death_has_the_traceback_and_that_of_a_retry_is_one_line(bench, task, caplog):
    caplog.set_level("INFO")
    for attempt in (1, 3):
        run = bench.admitted(task, 1, attempt=Attempt(attempt=attempt))
        try:
            raise ValueError("no good")
        except ValueError as error:
            bench.runner.raised(run, error)
    again, dead = caplog.records
    assert (again.levelname, dead.levelname, dead.message) == ("INFO", "ERROR", "task is dead")
    assert not hasattr(again, "traceback")
    assert dead.traceback.startswith("Traceback (most recent call last):")
    assert 'raise ValueError("no good")' in dead.traceback


def test_a_result_of_another_type_is_a_failure_and_not_tried_again(bench, task):
    run = bench.admitted(task, 1)
    bench.runner.finished(run, "one")
    end = bench.end_of(run)
    assert (end.letter.reason, end.failure.type_name) == ("failed", "streamwork.errors.ResultTypeError")
    assert end.failure.message.startswith("result of t: expected int, got str")


def test_a_result_whose_packing_ends_the_process_is_a_failure(bench, task, monkeypatch):
    def leave(value):
        raise SystemExit(3)

    run = bench.admitted(task, 1)
    monkeypatch.setattr(task.signature, "encode_result", leave)
    bench.runner.finished(run, 1)
    assert bench.end_of(run).failure.type_name == "SystemExit"
