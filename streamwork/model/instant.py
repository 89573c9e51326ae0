"""Instants as people write them: ``2h`` ago, or a date and time of ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from streamwork.errors import ConfigError
from streamwork.model.span import MOST_S, Seconds, milliseconds
from streamwork.model.timing import instant_ms

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_AGO = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(ms|s|min|m|h|d|w)")


def read_instant(text: str, what: str, now_ms: int) -> int:
    """Return an instant as ms since 1970.

    Args:
        text: A span before now (``90s``, ``15m``, ``2h``, ``1.5d``, ``1w``), ``now``, or ISO 8601
            (``2026-11-20``, ``2026-11-20T14:30``, ``2026-11-20T14:30+01:00``); without a zone it is in UTC.
        what: What it is, for the error's text.
        now_ms: Now.

    Raises:
        ConfigError: It is none of these.
    """
    words = text.strip()
    if words == "now":
        return now_ms
    if ago := _AGO.fullmatch(words):
        return max(0, now_ms - round(float(ago[1]) * _UNITS_MS[ago[2]]))
    try:
        found = datetime.fromisoformat(words)
    except ValueError:
        raise ConfigError(
            f"{what} {text!r} is no time: give a span before now such as 90s, 15m, 2h or 7d, "
            "or a date and time such as 2026-11-20T14:30 (UTC) or 2026-11-20T14:30+01:00"
        ) from None
    return instant_ms(found if found.tzinfo is not None else found.replace(tzinfo=UTC), what)


def read_span(text: str, what: str) -> int:
    """Return a span as it is written (``90s``, ``15m``, ``2h``, ``7d``) in ms, 1 at least; raises ConfigError."""
    found = _AGO.fullmatch(text.strip())
    span_ms = round(float(found[1]) * _UNITS_MS[found[2]]) if found else 0
    if not 0 < span_ms <= MOST_S * 1000:
        raise ConfigError(f"{what} {text!r} is no span of time: give one such as 90s, 15m, 2h or 7d")
    return span_ms


def past_instant_ms(value: datetime | Seconds | None, what: str, now_ms: int) -> int | None:
    """Return what a program says of the past as ms since 1970; None stays None.

    Args:
        value: An aware datetime, or how long before now: seconds or a timedelta.
        what: What it is, for the error's text.
        now_ms: Now.

    Raises:
        ConfigError: It is neither.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        return instant_ms(value, what)
    if not isinstance(value, (int, float, timedelta)):
        raise ConfigError(
            f"{what}={value!r}: give a datetime with a time zone, or how long ago in seconds or timedelta"
        )
    return max(0, now_ms - milliseconds(value, what))
