"""When schedules are due: every change of clocks from 2020 to 2035, against a plain count of minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamwork.errors import ConfigError
from streamwork.model.calendar import Cron, Every, cron, every, occurrences

MINUTE_MS = 60_000
AROUND_MS = 5 * 3_600_000
# One hour, half an hour, two hours, at midnight, around Ramadan, rules that changed within these years.
ZONES = (
    "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll", "America/Havana",
    "Africa/Casablanca", "Asia/Tehran", "Africa/Cairo", "Asia/Gaza", "America/Godthab",
)  # fmt: skip
# Minutes and hours of simple expressions, which the plain count below understands.
DAILY = [
    ("30 2 * * *", {30}, {2}), ("0 0 * * *", {0}, {0}), ("15,45 1-3 * * *", {15, 45}, {1, 2, 3}),
    ("59 23 * * *", {59}, {23}),
]  # fmt: skip
OFTEN = [("*/20 * * * *", {0, 20, 40}, set(range(24))), ("7 */2 * * *", {7}, set(range(0, 24, 2)))]


def ms(text):
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@cache
def changes(name):
    """Return the hours, ms, in which the clocks of a zone are set, 2020 to 2035."""
    zone, found = ZoneInfo(name), []
    at = datetime(2020, 1, 1, tzinfo=UTC)
    while at.year < 2036:
        step = timedelta(days=1)
        if at.astimezone(zone).utcoffset() != (at + step).astimezone(zone).utcoffset():
            hour = at
            while hour.astimezone(zone).utcoffset() == (hour + timedelta(hours=1)).astimezone(zone).utcoffset():
                hour += timedelta(hours=1)
            found.append(int(hour.timestamp() * 1000))
        at += step
    return found


def counted(name, minutes, hours, gap, overlap, since_ms, until_ms):
    """Return the occurrences by going through every minute of the time, and every one that the clocks leapt over."""
    zone = ZoneInfo(name)
    local = {at: datetime.fromtimestamp(at / 1000, zone) for at in range(since_ms, until_ms + 1, MINUTE_MS)}
    by_clock = {}
    for at, shown in local.items():
        by_clock.setdefault(shown.replace(tzinfo=None), []).append(at)
    found = set()
    for shown, ats in by_clock.items():
        if shown.minute in minutes and shown.hour in hours:
            found |= set({"first": ats[:1], "second": ats[-1:], "both": ats}[overlap])
    first, last = min(by_clock), max(by_clock)
    for n in range(int((last - first).total_seconds() // 60)):
        shown = first + timedelta(minutes=n)
        if shown not in by_clock and shown.minute in minutes and shown.hour in hours and gap == "shift":
            found.add(int(shown.replace(tzinfo=zone).timestamp() * 1000))
    return sorted(at for at in found if since_ms < at <= until_ms)


@pytest.mark.parametrize("zone", ZONES)
def test_every_change_of_clocks_from_2020_to_2035(zone):
    seen = changes(zone)
    for n, at in enumerate(seen):
        since, until = at - AROUND_MS, at + AROUND_MS
        expression, minutes, hours = (DAILY + OFTEN)[n % 6]
        gap, overlap = ("shift", "skip")[n % 2], ("first", "second", "both")[n // 2 % 3]
        made = list(occurrences(cron(expression, zone, gap, overlap), since, until))
        assert made == counted(zone, minutes, hours, gap, overlap, since, until), (at, expression, gap, overlap)
    assert len(seen) >= 5


@pytest.mark.parametrize("expression", [case[0] for case in DAILY + OFTEN])
def test_what_is_left_open_goes_by_what_the_expression_means(expression):
    is_frequent = expression in [case[0] for case in OFTEN]
    gap, overlap = ("skip", "both") if is_frequent else ("shift", "first")
    for at in changes("Europe/Paris")[:4]:
        open_, said = cron(expression, "Europe/Paris"), cron(expression, "Europe/Paris", gap, overlap)
        since, until = at - 86_400_000, at + 86_400_000
        assert list(occurrences(open_, since, until)) == list(occurrences(said, since, until))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ZONES), st.integers(ms("2020-01-01T00:00Z"), ms("2035-12-30T00:00Z")), st.integers(1, 3_600_000))
def test_wherever_it_is_asked_from_the_next_one_is_the_same(zone, at, back):
    made = cron("*/7 1-23/2 * * *", zone)
    after = made.next_after(at)
    assert after > at
    assert all(one > at - back for one in [made.next_after(at - back)])
    assert made.next_after(after - 1) == after  # nothing in between is skipped or doubled


def test_seconds_names_and_months():
    assert list(occurrences(cron("*/20 * * * * *"), ms("2026-11-29T10:00:05Z"), ms("2026-11-29T10:01:00Z"))) == [
        ms("2026-11-29T10:00:20Z"), ms("2026-11-29T10:00:40Z"), ms("2026-11-29T10:01:00Z"),
    ]  # fmt: skip
    made = cron("*/5 9-17 * * mon-fri", "Europe/Paris")
    assert made.next_after(ms("2026-11-27T16:57:00Z")) == ms("2026-11-30T08:00:00Z")  # from Friday evening to Monday
    assert cron("0 12 L * *").next_after(ms("2028-02-01T00:00Z")) == ms("2028-02-29T12:00Z")


def test_intervals_are_counted_from_1970_so_all_processes_agree():
    assert every(30_000).next_after(ms("2026-11-29T10:00:29.999Z")) == ms("2026-11-29T10:00:30Z")
    assert every(30_000).next_after(ms("2026-11-29T10:00:30Z")) == ms("2026-11-29T10:01:00Z")
    assert Every(1_000).next_after(0) == 1_000


@pytest.mark.parametrize(("args", "said"), [
    (("61 * * * *",), "cron='61 * * * *': bad minute"),
    (("* * *",), "cron='* * *': wrong number of fields"),
    (("0 0 30 2 *",), "cron='0 0 30 2 *': bad day-of-month"),
    (("",), "cron='': wrong number of fields"),
    ((7,), "cron=7: give an expression"),
    (("* * * * *", "Mars/Olympus"), "tz='Mars/Olympus': no such time zone"),
    (("* * * * *", "../etc/passwd"), "tz='../etc/passwd': no such time zone"),
    (("* * * * *", None), "tz=None: no such time zone"),
    (("* * * * *", "UTC", "leap"), "gap='leap': use one of auto, shift, skip"),
    (("* * * * *", "UTC", "skip", "third"), "overlap='third': use one of auto, first, second, both"),
])  # fmt: skip
def test_what_is_wrong_is_named(args, said):
    with pytest.raises(ConfigError) as caught:
        cron(*args)
    assert str(caught.value).startswith(said)


def test_an_interval_below_a_second_is_refused():
    with pytest.raises(ConfigError, match=r"every=0.5: a second or longer"):
        every(500)


def test_what_never_comes_again_has_no_next_one():
    assert Cron("0 0 29 2 *").next_after(ms("2096-03-01T00:00Z")) == ms("2104-02-29T00:00Z")
