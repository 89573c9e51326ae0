"""Schedules as data: what is due when nobody was there, and what is refused before anything is stored."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from streamwork import ArgumentError, ConfigError, Streamwork, TaskNotFound
from streamwork.broker.plans import occurrence, planned
from streamwork.errors import DecodeError, UseAsync
from streamwork.model.calendar import Every, cron
from streamwork.model.schedule import (
    MOST_MADE_UP,
    ON_TIME_MS,
    Due,
    Schedule,
    decode_schedule,
    due,
    encode_schedule,
)
from streamwork.store.planning import unique_name
from streamwork.wire.message import decode_message

EVERY_10_S = Every(10_000)
NIGHTLY = cron("0 9 * * *", "Europe/Paris")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MISSED = ("skip", "last", "all")


def at(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


# Nine in Paris, in winter.
MONDAY = at("2026-01-05T08:00:00")


def schedule(missed="last", calendar=EVERY_10_S, **more):
    return Schedule(1, "n", "t", "default", "1:", b"\x90", None, None, calendar, missed=missed, **more)


@pytest.mark.parametrize("missed", MISSED)
@pytest.mark.parametrize(
    ("calendar", "mark_ms", "now_ms", "expected"),
    [
        (EVERY_10_S, 20_000, 20_000, Due([], None, 30_000)),
        (EVERY_10_S, 20_000, 29_999, Due([], None, 30_000)),
        (EVERY_10_S, 20_000, 30_000, Due([30_000], None, 40_000)),
        (EVERY_10_S, 25_000, 31_000, Due([30_000], None, 40_000)),
        (NIGHTLY, MONDAY - DAY_MS, MONDAY - 1, Due([], None, MONDAY)),
        (NIGHTLY, MONDAY - DAY_MS, MONDAY, Due([MONDAY], None, MONDAY + DAY_MS)),
        (NIGHTLY, MONDAY - DAY_MS, MONDAY + ON_TIME_MS, Due([MONDAY], None, MONDAY + DAY_MS)),
        (NIGHTLY, MONDAY, MONDAY + 1, Due([], None, MONDAY + DAY_MS)),
        # The server's clock went back: what was decided stays so, and the next one comes when it comes.
        (EVERY_10_S, 90_000, 20_000, Due([], None, 100_000)),
    ],
)
def test_what_is_in_time_is_the_same_whatever_is_missed(missed, calendar, mark_ms, now_ms, expected):
    assert due(schedule(missed, calendar), mark_ms, now_ms) == expected


@pytest.mark.parametrize(
    ("missed", "calendar", "mark_ms", "now_ms", "expected"),
    [
        ("last", EVERY_10_S, 20_000, 59_000, Due([50_000], None, 60_000)),
        ("skip", EVERY_10_S, 20_000, 59_000, Due([50_000], None, 60_000)),
        ("all", EVERY_10_S, 20_000, 59_000, Due([30_000, 40_000, 50_000], None, 60_000)),
        ("last", NIGHTLY, MONDAY - 9 * DAY_MS, MONDAY + HOUR_MS, Due([MONDAY], None, MONDAY + DAY_MS)),
        ("skip", NIGHTLY, MONDAY - 9 * DAY_MS, MONDAY + HOUR_MS, Due([], MONDAY, MONDAY + DAY_MS)),
        ("skip", NIGHTLY, MONDAY - DAY_MS, MONDAY + ON_TIME_MS + 1, Due([], MONDAY, MONDAY + DAY_MS)),
        (
            "all", NIGHTLY, MONDAY - 3 * DAY_MS, MONDAY + HOUR_MS,
            Due([MONDAY - 2 * DAY_MS, MONDAY - DAY_MS, MONDAY], None, MONDAY + DAY_MS),
        ),
    ],
)  # fmt: skip
def test_what_nobody_was_there_for(missed, calendar, mark_ms, now_ms, expected):
    assert due(schedule(missed, calendar), mark_ms, now_ms) == expected


def test_the_clocks_are_set_in_between():
    """Nine in Paris is an hour earlier by UTC from 29 March 2026."""
    now_ms = at("2026-03-30T12:00:00")
    found = due(schedule("all", NIGHTLY), at("2026-03-27T12:00:00"), now_ms)
    assert found.fire == [at("2026-03-28T08:00:00"), at("2026-03-29T07:00:00"), at("2026-03-30T07:00:00")]
    assert found.next_ms == at("2026-03-31T07:00:00")


@pytest.mark.parametrize("calendar", [Every(60_000), cron("* * * * *")], ids=["every", "cron"])
def test_a_thousand_are_made_up_for_and_the_oldest_go(calendar):
    minute = 60_000
    for count in (MOST_MADE_UP, MOST_MADE_UP + 1, 5 * MOST_MADE_UP):
        found = due(schedule("all", calendar), minute, (count + 1) * minute + 1)
        last = [(n + 2) * minute for n in range(count)][-MOST_MADE_UP:]
        over = None if count == MOST_MADE_UP else last[0] - minute
        assert found == Due(last, over, (count + 2) * minute)


@pytest.mark.parametrize("calendar", [cron("0 0 29 2 *"), cron("0 0 1 1 *")], ids=["leap", "yearly"])
def test_a_last_one_of_years_ago_is_found(calendar):
    """Between two looks nobody was there for ten years; the last 29 February is three years back."""
    now_ms = at("2027-06-01T00:00:00")
    found = due(schedule("last", calendar), at("2017-06-01T00:00:00"), now_ms)
    assert found.fire == [at("2024-02-29T00:00:00" if "29" in calendar.expression else "2027-01-01T00:00:00")]


def test_a_record_comes_back_and_another_form_is_refused():
    made = schedule("all", NIGHTLY, overlap="skip", expires_ms=5, is_declared=True)
    assert decode_schedule(encode_schedule(made)) == made
    newer = encode_schedule(Schedule(2, *[getattr(made, name) for name in made.__struct_fields__[1:]]))
    for record, said in ((newer, "version 2"), (b"x", "not a schedule"), (b"", "not a schedule")):
        with pytest.raises(DecodeError, match=said):
            decode_schedule(record)


@pytest.fixture
def nowhere():
    """An app whose Redis is not there: whatever would store something fails with another error than is looked for."""
    return Streamwork("declared", "redis://127.0.0.1:1/0", {"client.send_timeout_s": 0.0})


@pytest.fixture
def task(nowhere):
    @nowhere.task(name="greet")
    def greet(name: str, *, loud: bool = False) -> str:
        return name

    return greet


WRONG_CALENDARS = [
    ({"cron": "61 * * * *"}, "cron='61"),
    ({"cron": "* * *"}, "cron="),
    ({"cron": ""}, "cron="),
    ({"cron": "0 0 30 2 *"}, "cron='0 0 30 2"),
    ({"cron": 5}, "give an expression"),
    ({"cron": "0 9 * * *", "tz": "Europe/Atlantis"}, "no such time zone"),
    ({"cron": "0 9 * * *", "tz": ""}, "no such time zone"),
    ({"every": 0.1}, "second"),
    ({"every": 0}, "every"),
    ({"every": -5}, "every"),
    ({"every": "soon"}, "every"),
]
WRONG_POLICIES = [
    ({"every": 5, "missed": "never"}, "missed='never'"),
    ({"every": 5, "overlap": "replace"}, "overlap='replace'"),
    ({"every": 5, "missed": None}, "missed=None"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_CALENDARS + WRONG_POLICIES)
def test_a_wrong_word_is_refused_where_it_is_declared_and_where_it_is_added(nowhere, task, words, said):
    with pytest.raises(ConfigError, match=said):
        nowhere.schedules.add("n", task.call("x"), **words)
    with pytest.raises(ConfigError, match=said):
        asyncio.run(nowhere.schedules.aadd("n", task.call("x"), **words))
    rest = dict(words)
    first = rest.pop("cron") if "cron" in rest else rest.pop("every")
    with pytest.raises(ConfigError, match=said):
        (nowhere.cron if "cron" in words else nowhere.every)(first, args=("x",), **rest)(task)
    assert nowhere.declared_schedules() == {}


@pytest.mark.parametrize("words", [{}, {"cron": "0 9 * * *", "every": 5}])
def test_one_of_both_is_to_be_given(nowhere, task, words):
    with pytest.raises(ConfigError, match="give one of them"):
        nowhere.schedules.add("n", task.call("x"), **words)


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 101, 5])
def test_a_wrong_name_is_refused(nowhere, task, name):
    with pytest.raises(ConfigError, match="schedule"):
        nowhere.schedules.add(name, task.call("x"), every=5)
    if name:
        with pytest.raises(ConfigError, match="schedule"):
            nowhere.every(5, name=name, args=("x",))(task)
    for method in (nowhere.schedules.pause, nowhere.schedules.run_now, nowhere.schedules.remove):
        with pytest.raises(ConfigError, match="schedule"):
            method(name)
    assert nowhere.declared_schedules() == {}


@pytest.mark.parametrize(
    "options",
    [
        {"delay": 5},
        {"run_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"expires": datetime(2030, 1, 1, tzinfo=UTC)},
        {"debounce": 5},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_what_does_not_repeat_is_refused(nowhere, task, options):
    with pytest.raises(ConfigError, match="do not repeat"):
        nowhere.schedules.add("n", task.options(**options).call("x"), every=5)


def test_what_is_unique_is_told_to_say_so_by_overlap(nowhere, task):
    unique = task.options(unique=True)
    with pytest.raises(ConfigError, match="overlap='skip' instead of unique="):
        nowhere.schedules.add("n", unique.call("x"), every=5)
    with pytest.raises(ConfigError, match="overlap='skip' instead of unique="):
        nowhere.every(5, args=("x",))(unique)
    nowhere.every(5, args=("x",), overlap="skip")(unique.options(unique=None))
    assert set(nowhere.declared_schedules()["default"]) == {"greet"}


def test_arguments_have_to_fit(nowhere, task):
    for given in ({}, {"args": (5,)}, {"args": ("x", "y")}, {"kwargs": {"nam": "x"}}):
        with pytest.raises(ArgumentError):
            nowhere.every(5, **given)(task)
    assert nowhere.declared_schedules() == {}


def test_two_of_one_name_are_refused_and_with_names_are_not(nowhere, task):
    assert nowhere.every(5, args=("x",))(task) is task
    with pytest.raises(ConfigError, match="two schedules are named 'greet'"):
        nowhere.cron("0 9 * * *", args=("x",))(task)
    nowhere.cron("0 9 * * *", args=("x",), name="nine")(task)
    assert set(nowhere.declared_schedules()["default"]) == {"greet", "nine"}


def test_what_is_no_task_and_no_call_is_refused(nowhere, task):
    with pytest.raises(ConfigError, match="is not a task"):
        nowhere.every(5)(lambda: None)
    with pytest.raises(ConfigError, match="is not a call"):
        nowhere.schedules.add("n", task, every=5)
    with pytest.raises(TaskNotFound):
        nowhere.schedules.add("n", nowhere.call("elsewhere.task"), every=5)
    with pytest.raises(TaskNotFound):
        asyncio.run(nowhere.schedules.aadd("n", nowhere.call("elsewhere.task"), every=5))


def test_a_declaration_is_stored_as_it_was_written(nowhere, task):
    nowhere.cron("0 9 * * *", tz="Europe/Paris", args=("x",), missed="all", overlap="skip")(
        task.options(queue="mail", priority=9, expires=60)
    )
    ((queue, records),) = nowhere.declared_schedules().items()
    made = decode_schedule(records["greet"])
    assert (queue, made.queue, made.task, made.calendar) == ("mail", "mail", "greet", cron("0 9 * * *", "Europe/Paris"))
    assert (made.missed, made.overlap, made.expires_ms, made.is_declared) == ("all", "skip", 60_000, True)


def test_the_message_of_an_occurrence_says_which_it_is(nowhere, task):
    call = task.options(expires=60, timeout=7, priority=9)
    nowhere.every(10, args=("x",), kwargs={"loud": True}, overlap="skip")(call)
    (record,) = nowhere.declared_schedules()["default"].values()
    made = decode_schedule(record)
    one, two = occurrence(made, MONDAY), occurrence(made, MONDAY)
    assert one.task_id != two.task_id
    lane, attempt, body = one.due.split(b"\n", 2)
    message = decode_message(body)
    assert (lane.decode(), attempt) == (made.lane, b"1,0,0,1,0")
    assert (message.id, message.task, bytes(message.args)) == (one.task_id, "greet", b"\x91\xa1x")
    assert message.options.timeout_ms == 7_000
    assert message.options.expires_at_ms == MONDAY + 60_000
    assert planned(message.options.headers) == ("greet", datetime.fromtimestamp(MONDAY / 1000, UTC))
    assert unique_name("greet").encode() in one.limits
    assert planned({"tenant": "7"}) == ("", None)


def test_on_a_loop_the_blocking_methods_say_which_to_use(nowhere, task):
    async def main():
        calls = (
            lambda: nowhere.schedules.add("n", task.call("x"), every=5),
            nowhere.schedules.list,
            *(lambda m=m: getattr(nowhere.schedules, m)("n") for m in ("pause", "resume", "remove", "run_now")),
        )
        for call in calls:
            with pytest.raises(UseAsync, match=r"schedules\.a"):
                call()

    asyncio.run(main())
