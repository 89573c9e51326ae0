"""Spans of time as users give them: seconds, or a timedelta."""

from __future__ import annotations

from datetime import timedelta

from streamwork.errors import ConfigError

Seconds = float | timedelta

# 285 years: the longest that a thread can wait for a lock (threading.TIMEOUT_MAX), and short enough for Redis to count.
MOST_S = 9e9


def seconds(value: Seconds | None, what: str = "timeout") -> float | None:
    """Return a span in seconds, 0 – 9e9; None stays None.

    Args:
        value: A number or a timedelta.
        what: What it is, for the error's text.

    Raises:
        ConfigError: It is neither, negative, nan, or longer than 285 years.
    """
    if value is None:
        return None
    span: object = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(span, bool) or not isinstance(span, (int, float)):
        raise ConfigError(f"{what}={value!r}: give seconds as a number, or a timedelta")
    if not 0 <= span <= MOST_S:  # nan compares as false
        raise ConfigError(f"{what}={value!r}: a span of time is not negative and 9e9 seconds (285 years) at most")
    return float(span)


def milliseconds(value: Seconds, what: str) -> int:
    """Return a span in whole milliseconds: 0 for exactly nothing, at least 1 for all else.

    Raises:
        ConfigError: As `seconds`, or it is shorter than a millisecond.
    """
    span = seconds(value, what)
    assert span is not None
    span_ms = round(span * 1000)
    if span_ms == 0 and span:
        raise ConfigError(f"{what}={value!r}: nothing shorter than a millisecond (0.001) is counted")
    return span_ms
