"""Structured log lines: one line per record, the caller's facts, a task's facts first."""

from __future__ import annotations

import io
import json
import logging

import pytest

from streamwork.context import Context
from streamwork.telemetry import logs


@pytest.fixture
def lines(root_logging):
    """Set the logs up in a format and return what reads them."""

    def start(format_, level="info"):
        stream = io.StringIO()
        logs.set_up(level, format_, stream)
        return lambda: stream.getvalue().splitlines()

    return start


def test_text_is_time_level_sentence_and_facts(lines):
    read = lines("text")
    logging.getLogger("streamwork.x").warning("it happened", extra={"in_ms": 5, "error": "a b", "tags": ["x", "y"]})
    (line,) = read()
    time, rest = line.split(" ", 1)
    assert len(time) == len("2026-01-01T00:00:00.000Z")
    assert time[10] == "T"
    assert time[-1] == "Z"
    assert rest == 'warning it happened in_ms=5 error="a b" tags=x,y'


def test_json_is_one_object_per_line(lines):
    read = lines("json")
    facts = {"error": 'quo"ted\nline', "tags": {"x"}, "path": io, "empty": "", "none": None, "zero": 0, "no": False}
    logging.getLogger("streamwork.x").error("it %s", "happened", extra=facts)
    (line,) = read()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found.pop("path").startswith("<module 'io'")
    assert found == {
        "level": "error", "message": "it happened", "logger": "streamwork.x", "error": 'quo"ted\nline', "tags": ["x"],
        "zero": 0, "no": False,
    }  # fmt: skip


@pytest.mark.parametrize("format_", ["text", "json"])
def test_one_record_is_one_line_whatever_it_holds(lines, format_):
    read = lines(format_)
    logging.getLogger("a").error("two\nlines", extra={"fact": "three\nmore\rlines"})
    assert len(read()) == 1


def test_the_facts_of_a_task_come_first(lines):
    read = lines("text")
    extra = {"error": "x", "attempt": 2, "queue": "q", "task": "t", "task_id": "7"}
    logging.getLogger("streamwork").info("again", extra=extra)
    assert read()[0].endswith("again task_id=7 task=t queue=q attempt=2 error=x")


def test_what_a_task_logs_carries_its_facts(lines):
    read = lines("json")
    context = Context("shop.pay")
    context.task_id, context.attempt = "0197", 3
    context.log.info("paid")
    found = json.loads(read()[0])
    assert (found["task_id"], found["task"], found["attempt"]) == ("0197", "shop.pay", 3)


def test_a_traceback_is_a_field_in_json_and_follows_in_text(lines):
    for format_ in ("json", "text"):
        read = lines(format_)
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            logging.getLogger("streamwork").exception("it broke")
        first, *rest = read()
        text = json.loads(first)["traceback"] if format_ == "json" else "\n".join(rest)
        assert text.startswith("Traceback (most recent call last):")
        assert text.endswith("ZeroDivisionError: division by zero")


def test_a_traceback_that_is_a_fact_follows_indented_in_text(lines):
    told = "Traceback (most recent call last):\n  File x\nValueError: no\n"
    for format_ in ("json", "text"):
        read = lines(format_)
        logging.getLogger("streamwork").error("task is dead", extra={"traceback": told, "reason": "failed"})
        first, *rest = read()
        if format_ == "json":
            assert (json.loads(first)["traceback"], rest) == (told, [])
        else:
            assert first.endswith("error   task is dead reason=failed")
            assert rest == [f"    {line}" for line in told.splitlines()]


def test_arguments_that_do_not_fit_lose_nothing(lines):
    read = lines("text")
    logging.getLogger("user").warning("%d apples", "many")
    assert "%d apples ('many',)" in read()[0]


def test_levels_and_talkative_libraries(lines):
    read = lines("text")
    logging.getLogger("streamwork").debug("quiet")
    logging.getLogger("redis").info("quiet")
    logging.getLogger("user.code").info("heard")
    assert [line.split(" ", 1)[1] for line in read()] == ["info    heard"]
    read = lines("text", "debug")
    logging.getLogger("streamwork").debug("heard")
    logging.getLogger("asyncio").debug("quiet")
    assert [line.split(" ", 1)[1] for line in read()] == ["debug   heard"]


def test_ours_keep_their_form_when_an_app_sets_up_logging_of_its_own(lines):
    read = lines("text")
    logging.basicConfig(force=True, stream=io.StringIO())
    logging.getLogger("streamwork").info("still here", extra={"a": 1})
    assert read()[0].endswith("still here a=1")


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_line_within_a_trace_says_so_after_the_facts(lines, format_, monkeypatch):
    read = lines(format_)
    monkeypatch.setattr(logs, "trace_of", lambda: ("ab" * 16, "cd" * 8))
    logging.getLogger("a").info("it happened", extra={"n": 1})
    (line,) = read()
    if format_ == "json":
        found = json.loads(line)
        assert (found["trace_id"], found["span_id"], found["n"]) == ("ab" * 16, "cd" * 8, 1)
    else:
        assert line.endswith(f"it happened n=1 trace_id={'ab' * 16} span_id={'cd' * 8}")
