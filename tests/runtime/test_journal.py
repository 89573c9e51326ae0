"""What one journal record says of an attempt, made by a runner and read back as history reads it."""

from __future__ import annotations

import pytest

from streamwork import Retry, Skip
from streamwork.model.digest import digest_of
from streamwork.wire.message import Attempt, Options, decode_journal

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def task(bench):
    @bench.app.task(name="t", retry=Retry(max_attempts=3, base=1, jitter=False))
    def body(number: int) -> str:
        return "x" * number

    return body


def record(bench, run, end):
    """End a run in some way and return its record."""
    end(run)
    (item,) = [item for other, item in bench.settled if other is run]
    return decode_journal(item.journal)


def raising(bench, error):
    def end(run):
        try:
            raise error
        except Exception as raised:
            bench.runner.raised(run, raised)

    return end


def started(bench, *args, **options):
    run = bench.admitted(*args, **options)
    bench.runner.start(run, 0)
    return run


def test_a_success_says_who_where_when_and_how_much(bench, task):
    run = started(bench, task, 7)
    made = record(bench, run, lambda run: bench.runner.finished(run, "x" * 7))
    assert (made.id, made.task, made.state, made.lane, made.entry) == (
        run.message.id,
        "t",
        "succeeded",
        "1:",
        run.entry,
    )
    assert (made.attempt, made.crashes, made.consumer) == (1, 0, "consumer")
    assert 0 < made.started_at_ms <= made.ended_at_ms
    assert made.result_bytes == 8
    assert (made.detail, made.error_type, made.digest, made.parent, made.trace_id) == ("", "", "", "", "")


@pytest.mark.parametrize(("attempt", "state"), [(1, "retried"), (3, "dead")])
def test_a_failure_has_its_class_and_a_digest_also_where_it_runs_again(bench, task, attempt, state):
    end = raising(bench, OSError("order 7"))
    made = record(bench, started(bench, task, 1, attempt=Attempt(attempt=attempt, crashes=1)), end)
    assert (made.state, made.attempt, made.crashes, made.error_type) == (state, attempt, 1, "OSError")
    other = record(bench, started(bench, task, 1), raising(bench, OSError("order 8")))
    assert made.digest == other.digest != digest_of("OSError")
    assert made.result_bytes == 0


def test_what_ends_without_an_exception_has_a_digest_of_its_reason(bench, task):
    crashed = record(bench, started(bench, task, 1), lambda run: bench.runner.crashed(run, "signal 9"))
    assert (crashed.state, crashed.error_type, crashed.digest) == ("crashed", "Crashed", digest_of("Crashed"))
    run = bench.delivery(task, 1, attempt=Attempt(crashes=3))
    assert bench.runner.decode(run)
    quarantined = record(bench, run, bench.runner.admit)
    assert (quarantined.error_type, quarantined.digest) == ("Quarantined", digest_of("Quarantined"))


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ({"parent": "p" * 32, "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, ("p" * 32, TRACE)),
        ({"traceparent": "no trace"}, ("", "")),
        ({"tenant": "3"}, ("", "")),
    ],
)
def test_parent_and_trace_come_from_the_headers(bench, task, headers, origin):
    for end in (lambda run: bench.runner.finished(run, "x"), raising(bench, OSError("no")), raising(bench, Skip("no"))):
        made = record(bench, started(bench, task, 1, options=Options(headers=headers)), end)
        assert (made.parent, made.trace_id) == origin


def test_what_is_no_failure_has_no_class_of_one(bench, task):
    made = record(bench, started(bench, task, 1), raising(bench, Skip("no need")))
    assert (made.state, made.detail, made.error_type, made.digest) == ("skipped", "no need", "", "")
    run = bench.delivery("elsewhere", 1)
    assert bench.runner.decode(run)
    deferred = record(bench, run, bench.runner.admit)
    assert (deferred.state, deferred.error_type) == ("deferred", "")
