"""The last log lines of a process, kept where its supervisor can read them."""

from __future__ import annotations

import logging
import os

import pytest

from streamwork.telemetry.last_lines import Keeper, LastLines


@pytest.fixture
def lines():
    made = LastLines()
    yield made
    made.close()


def test_the_last_ten_lines_are_there(lines):
    assert lines.text() == ""
    for n in range(15):
        lines.add(f"line {n}")
    assert lines.text().splitlines() == [f"line {n}" for n in range(5, 15)]


@pytest.mark.parametrize("length", [1, 39, 199, 1022, 2044, 4087])
def test_they_are_whole_lines_however_often_the_memory_is_filled(lines, length):
    written = [f"{n:04}" + "x" * length for n in range(200)]
    for line in written:
        lines.add(line)
    kept = lines.text().splitlines()
    assert kept == written[len(written) - len(kept) :]
    assert len(kept) == min(10, 2000 // (length + 5)) or len(kept) == min(10, 2000 // (length + 5)) - 1


def test_of_a_line_that_is_too_long_nothing_breaks(lines):
    lines.add("y" * 10_000)
    lines.add("short")
    assert lines.text() == "short"


def test_what_is_no_text_is_told_as_far_as_it_goes(lines):
    lines.add("a\ud800b")
    lines.add("ü" * 1500)
    lines.add("end")
    assert lines.text().splitlines()[-1] == "end"


def test_a_process_that_was_killed_has_left_them(lines):
    pid = os.fork()
    if not pid:
        logger = logging.getLogger("last lines")
        logger.addHandler(Keeper(lines, logging.Formatter("%(message)s")))
        logger.error("last words of %s", "mine")
        os._exit(1)
    os.waitpid(pid, 0)
    assert lines.text() == "last words of mine"


def test_freed_memory_has_none():
    lines = LastLines()
    lines.add("x")
    lines.close()
    assert lines.text() == ""
