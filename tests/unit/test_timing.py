"""When a message may run: what callers say, and what is wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from streamwork.errors import ConfigError
from streamwork.model.timing import NOW

AT = datetime(2026, 12, 1, 9, tzinfo=timezone(timedelta(hours=1)))
NAIVE = datetime(2026, 12, 1)  # noqa: DTZ001 - that is what is wrong with it
AT_MS = 1_796_112_000_000


def test_spans_count_from_the_moment_of_sending_and_instants_do_not():
    assert NOW.changed({"delay": 1.5}).when == "+1500"
    assert NOW.changed({"delay": timedelta(minutes=1)}).when == "+60000"
    assert NOW.changed({"run_at": AT}).when == str(AT_MS)
    assert NOW.changed({"expires": 2}).expiry_ms(10) == 2_010
    assert NOW.changed({"expires": AT}).expiry_ms(10) == AT_MS


def test_an_instant_between_two_milliseconds_is_not_early():
    for micros in (1, 400, 999):
        assert NOW.changed({"run_at": AT + timedelta(microseconds=micros)}).when == str(AT_MS + 1)
    assert NOW.changed({"expires": AT + timedelta(microseconds=1)}).expiry_ms(10) == AT_MS + 1


def test_nothing_is_now():
    assert NOW.when == NOW.changed({"delay": 0}).when == ""
    assert NOW.expiry_ms(0) is None


def test_the_later_word_counts():
    assert NOW.changed({"delay": 5}).changed({"run_at": AT}).when == str(AT_MS)
    assert NOW.changed({"run_at": AT}).changed({"delay": 5}).when == "+5000"
    assert NOW.changed({"expires": AT}).changed({"expires": None}).expiry_ms(0) is None
    assert NOW.changed({"delay": 5}).changed({"expires": 1}).when == "+5000"


@pytest.mark.parametrize(("options", "said"), [
    ({"delay": 5, "expires": 4.999}, "delay is behind expires"),
    ({"delay": 5, "expires": AT}, "delay is behind expires"),
    ({"run_at": AT, "expires": 4}, "run_at is behind expires"),
    ({"run_at": AT, "expires": AT - timedelta(milliseconds=1)}, "run_at is behind expires"),
])  # fmt: skip
def test_what_would_expire_before_it_is_due_is_refused(options, said):
    now_ms = AT_MS - 4_000 if isinstance(options["expires"], datetime) else AT_MS - 5_000
    with pytest.raises(ConfigError, match=said):
        NOW.changed(options).expiry_ms(now_ms)
    assert NOW.changed({**options, "expires": AT + timedelta(seconds=9)}).expiry_ms(now_ms) == AT_MS + 9_000


@pytest.mark.parametrize(("options", "said"), [
    ({"delay": -1}, "delay=-1"),
    ({"delay": "5"}, "delay='5': give seconds"),
    ({"delay": float("nan")}, "delay=nan"),
    ({"delay": True}, "delay=True"),
    ({"run_at": NAIVE}, "say which time zone it is of"),
    ({"run_at": 5}, "run_at=5: give a datetime with a time zone"),
    ({"run_at": datetime(1969, 1, 1, tzinfo=UTC)}, "between 1970 and 9999"),
    ({"run_at": AT, "delay": 5}, "delay and run_at are two words for one thing"),
    ({"expires": 0}, "expires=0: it would never run"),
    ({"expires": NAIVE}, "expires="),
])  # fmt: skip
def test_what_is_wrong_is_named(options, said):
    with pytest.raises(ConfigError) as caught:
        NOW.changed(options)
    assert said in str(caught.value)
