"""Instants as people write them, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from streamwork.errors import ConfigError
from streamwork.model.instant import past_instant_ms, read_instant

NOW_MS = 1_795_000_000_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("now", NOW_MS), ("0s", NOW_MS), ("250ms", NOW_MS - 250), ("90s", NOW_MS - 90_000), ("15m", NOW_MS - 900_000),
        ("15min", NOW_MS - 900_000), ("2h", NOW_MS - 7_200_000), (" 2 h ", NOW_MS - 7_200_000),
        ("1.5d", NOW_MS - 129_600_000), ("1w", NOW_MS - 604_800_000), ("999999999999w", 0),
        ("2026-11-20", 1_795_132_800_000), ("2026-11-20T14:30", 1_795_185_000_000),
        ("2026-11-20 14:30:00.250Z", 1_795_185_000_250), ("2026-11-20T14:30+01:00", 1_795_181_400_000),
    ],
)  # fmt: skip
def test_what_people_write(text, ms):
    assert read_instant(text, "--since", NOW_MS) == ms


@pytest.mark.parametrize(
    "text",
    ["", "2 hours ago-ish", "yesterday", "2x", "h", "-2h", "2026-13-01", "2026-11-20T25:00", "1e3s", "1900-01-01"],
)
def test_what_is_no_time_is_refused_with_what_to_write(text):
    with pytest.raises(ConfigError, match=r"--since.*(such as 90s, 15m, 2h|between 1970 and 9999)"):
        read_instant(text, "--since", NOW_MS)


def test_what_programs_say():
    assert past_instant_ms(None, "since", NOW_MS) is None
    assert past_instant_ms(2, "since", NOW_MS) == NOW_MS - 2_000
    assert past_instant_ms(timedelta(minutes=1), "since", NOW_MS) == NOW_MS - 60_000
    assert past_instant_ms(datetime(2026, 11, 20, tzinfo=UTC), "since", NOW_MS) == 1_795_132_800_000
    for wrong in ("2h", datetime(2026, 11, 20), -1, float("nan"), object()):  # noqa: DTZ001
        with pytest.raises(ConfigError, match="since="):
            past_instant_ms(wrong, "since", NOW_MS)
