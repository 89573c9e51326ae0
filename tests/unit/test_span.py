"""Spans of time as users give them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from streamwork.errors import ConfigError
from streamwork.model.span import MOST_S, milliseconds, seconds


@pytest.mark.parametrize(
    ("given", "span"),
    [(0, 0), (5, 5), (0.25, 0.25), (1e-9, 1e-9), (dt.timedelta(minutes=1), 60), (MOST_S, MOST_S), (None, None)],
)
def test_a_span_is_a_number_of_seconds_or_a_timedelta(given, span):
    assert seconds(given) == span
    assert span is None or type(seconds(given)) is float


@pytest.mark.parametrize(
    "wrong",
    [
        "5", b"5", "abc", True, False, [], {}, object, Decimal(1), 1j,
        -1, -1e-9, dt.timedelta(days=-1), float("nan"), float("inf"), 1e15, 10**400, dt.timedelta.max,
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_span_is_refused_with_its_name(wrong):
    with pytest.raises(ConfigError, match=r"^patience="):
        seconds(wrong, "patience")
    with pytest.raises(ConfigError, match=r"^patience="):
        milliseconds(wrong, "patience")


def test_milliseconds_are_rounded_and_nothing_becomes_nothing_unasked():
    assert [milliseconds(span, "keep") for span in (0, 0.001, 0.0014, 1.001, 0.29)] == [0, 1, 1, 1001, 290]
    with pytest.raises(ConfigError, match=r"keep=1e-05: nothing shorter than a millisecond"):
        milliseconds(1e-5, "keep")
