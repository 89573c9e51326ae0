"""The table that outlives a worker process: what it had started, and its stamps."""

from __future__ import annotations

import os

import pytest

from streamwork.worker.slot_table import SlotTable, Started


@pytest.fixture
def table():
    table = SlotTable(3)
    yield table
    table.close()


def test_a_new_table_is_empty(table):
    assert table.started() == []
    assert (table.beat_at_ms, table.loop_at_ms, table.read_at_ms, table.free_slots) == (0, 0, 0, 0)


def test_what_was_started_and_not_cleared_is_listed(table):
    table.start(0, 0, b"1700000000000-0", b"1:")
    table.start(2, 7, b"18446744073709551615-18446744073709551615", b"3:eu,gpu")
    assert table.started() == [
        Started(0, b"1700000000000-0", "1:"),
        Started(7, b"18446744073709551615-18446744073709551615", "3:eu,gpu"),
    ]
    table.clear(0)
    assert [started.queue_number for started in table.started()] == [7]


def test_a_slot_is_used_again_without_traces_of_the_last(table):
    table.start(1, 65_535, b"18446744073709551615-1", b"1:" + b"t" * 200)
    table.start(1, 1, b"1-0", b"0:")
    assert table.started() == [Started(1, b"1-0", "0:")]


def test_stamps_do_not_disturb_each_other_or_the_slots(table):
    table.start(0, 0, b"1-0", b"1:")
    table.beat_at_ms, table.loop_at_ms, table.read_at_ms, table.free_slots = 2**62, 2, 3, 4
    assert (table.beat_at_ms, table.loop_at_ms, table.read_at_ms, table.free_slots) == (2**62, 2, 3, 4)
    assert len(table.started()) == 1


def test_the_parent_sees_what_a_child_wrote_also_after_its_death(table):
    pid = os.fork()
    if pid == 0:
        table.start(1, 0, b"5-0", b"1:")
        table.loop_at_ms = 42
        os._exit(0)
    os.waitpid(pid, 0)
    assert (table.started(), table.loop_at_ms) == ([Started(0, b"5-0", "1:")], 42)
