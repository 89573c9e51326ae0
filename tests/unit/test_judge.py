"""`judge`: every rule of how a delivery ends, as a table."""

from __future__ import annotations

import pytest

from streamwork.errors import Reject, RetryLater, Skip
from streamwork.model.digest import digest_of
from streamwork.model.judge import Again, Dead, Skipped, decide, judge, text_of, traceback_text, type_name
from streamwork.model.policy import Retry

TWICE = Retry(max_attempts=2, base=1, factor=3, jitter=False)
THRICE = Retry(max_attempts=3, base=1, factor=3, jitter=False)
OS_ONLY = Retry(max_attempts=5, on=(OSError,), base=0.5, jitter=False)


class Custom(ValueError):
    pass


NAME = f"{__name__}.Custom"


@pytest.mark.parametrize(
    ("error", "attempt", "policies", "expected"),
    [
        (ValueError("x"), 1, (THRICE,), Again(1_000, "ValueError", "x")),
        (ValueError("x"), 2, (THRICE,), Again(3_000, "ValueError", "x")),
        (ValueError("x"), 3, (THRICE,), Dead("failed", "ValueError", "x", "")),
        (ValueError("x"), 9, (THRICE,), Dead("failed", "ValueError", "x", "")),
        (Custom("x"), 1, (TWICE,), Again(1_000, NAME, "x")),
        # Without a policy, or with none that fits, the first error is the last.
        (ValueError("x"), 1, (), Dead("failed", "ValueError", "x", "")),
        (ValueError("x"), 1, (OS_ONLY,), Dead("failed", "ValueError", "x", "")),
        # The first policy that fits counts, also when a later one would allow more.
        (OSError("x"), 2, (OS_ONLY, TWICE), Again(1_000, "OSError", "x")),
        (FileNotFoundError("x"), 4, (OS_ONLY, TWICE), Again(4_000, "FileNotFoundError", "x")),
        (ValueError("x"), 2, (OS_ONLY, TWICE), Dead("failed", "ValueError", "x", "")),
        (ValueError("x"), 2, (TWICE, Retry(max_attempts=99)), Dead("failed", "ValueError", "x", "")),
        # What is no Exception is not retried by the default policy.
        (KeyboardInterrupt(), 1, (THRICE,), Dead("failed", "KeyboardInterrupt", "", "")),
        (SystemExit(1), 1, (Retry(on=BaseException, base=0, jitter=False),), Again(0, "SystemExit", "1")),
        # Signals.
        (Skip("enough"), 1, (THRICE,), Skipped("enough")),
        (Skip(), 7, (), Skipped("")),
        (Reject("never"), 1, (THRICE,), Dead("rejected", "Reject", "never", "")),
        (RetryLater(2.5, "busy"), 1, (THRICE,), Again(2_500, "RetryLater", "busy")),
        (RetryLater(0), 1, (THRICE,), Again(0, "RetryLater", "")),
        (RetryLater(), 2, (THRICE,), Again(3_000, "RetryLater", "")),
        (RetryLater(1, "busy"), 3, (THRICE,), Dead("failed", "RetryLater", "busy", "")),
        (RetryLater(1), 3, (THRICE,), Dead("failed", "RetryLater", "retry later", "")),
        (RetryLater(1), 10_000, (), Again(1_000, "RetryLater", "")),
        (RetryLater(1), 10_000, (OS_ONLY,), Again(1_000, "RetryLater", "")),
    ],
)
def test_a_delivery_ends_as_the_table_says(error, attempt, policies, expected):
    verdict = judge(error, attempt, policies)
    assert type(verdict) is type(expected)
    if isinstance(verdict, Dead) and verdict.reason == "failed" and not isinstance(error, RetryLater):
        assert type_name(error).rpartition(".")[2] in verdict.traceback
        verdict = verdict._replace(traceback="")
    assert verdict == expected


def test_retry_later_without_a_policy_waits_as_the_default_policy_would():
    waits = {judge(RetryLater(), 3, ()).delay_ms for _ in range(50)}
    assert all(0 <= wait <= 4_000 for wait in waits)
    assert len(waits) > 10


def test_a_traceback_shows_where_it_was_raised_and_what_caused_it():
    try:
        try:
            raise OSError("inner")
        except OSError as error:
            raise Custom("outer") from error
    except Custom as error:
        text = judge(error, 1, ()).traceback
    assert "inner" in text
    assert text.rstrip().endswith("Custom: outer")
    assert "test_judge.py" in text


def test_an_exception_that_cannot_be_shown_is_judged_all_the_same():
    class Rude(Exception):
        def __str__(self):
            raise RuntimeError

    verdict = judge(Rude(), 1, ())
    assert verdict.message == "<its text cannot be had: RuntimeError>"
    assert "Rude" in verdict.type_name


def test_texts_are_bounded():
    error = ValueError("x" * 100_000)
    assert len(text_of(error)) == 4_000
    assert len(traceback_text(error)) == 8_000


@pytest.mark.parametrize("in_s", [-1, -0.001])
def test_a_delay_cannot_be_negative(in_s):
    with pytest.raises(ValueError, match="negative"):
        RetryLater(in_s)


class Mute:
    """What cannot be shown."""

    def __str__(self):
        raise SystemExit

    __repr__ = __str__


def test_a_reason_that_cannot_be_shown_is_no_way_out():
    text = "<its text cannot be had: SystemExit>"
    assert judge(Reject(Mute()), 1, ()) == Dead("rejected", "Reject", text, "")
    assert judge(Skip(Mute()), 1, ()) == Skipped(text)
    assert judge(RetryLater(1, Mute()), 1, ()) == Again(1_000, "RetryLater", text)
    assert judge(Reject(b"\xff"), 1, ()).message == "b'\\xff'"
    assert len(judge(Reject("x" * 100_000), 1, ()).message) == 4_000


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (Skip, Skipped("")),
        (Reject, Dead("rejected", "Reject", "", "")),
        (RetryLater, Again(1_000, "RetryLater", "")),
    ],
)
def test_a_signal_of_ones_own_need_not_call_init(base, expected):
    class Own(base):
        def __init__(self):
            pass

    assert judge(Own(), 1, (THRICE,)) == expected


class Picky(type):
    """Exception types that ask before anything is compared with them."""

    def __instancecheck__(cls, instance):
        raise TypeError("compares with nothing")


class Odd(Exception, metaclass=Picky):
    pass


@pytest.mark.parametrize(
    ("declared", "carried", "why"),
    [
        ((Retry(on=(Odd,)),), None, "compares with nothing"),
        ((), (0, 1.0, 2.0, 60.0, True), "at least 1"),
        ((), (2, float("nan"), 2.0, 60.0, True), "base"),
        (None, None, "not iterable"),
    ],
)
def test_what_goes_wrong_in_judging_is_a_verdict_that_tells_of_both(declared, carried, why):
    verdict = decide(ValueError("the first"), 1, declared, carried)
    assert (verdict.reason, verdict.type_name) == ("failed", "ValueError")
    assert verdict.message.startswith("the first (and its retry policy: ")
    assert why in verdict.message


def test_without_trouble_deciding_is_judging():
    digest = digest_of("ValueError")
    assert decide(ValueError("x"), 1, (THRICE,)) == judge(ValueError("x"), 1, (THRICE,))._replace(digest=digest)
    assert decide(ValueError("x"), 1, (), (2, 1.0, 3.0, 600.0, False)) == Again(1_000, "ValueError", "x", digest)
    assert decide(Skip("no need"), 1, ()) == Skipped("no need")


def test_a_class_name_without_a_stored_form_is_shown_all_the_same():
    assert type_name(type("Odd", (Exception,), {"__module__": "\udcff"})()) == "\\udcff.Odd"
