"""How much a process takes up: never more than its slots, its unsent outcomes and its max_tasks allow (rules 5, 24)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from streamwork.config import WorkerConfig
from streamwork.worker.bounds import Bounds
from streamwork.worker.drain import Hand
from streamwork.worker.settle import MOST_UNSENT_BYTES
from streamwork.worker.slot_table import ROWS_PER_SLOT


@pytest.fixture
def parts():
    """The bounds of a process with ten slots, and what they look at."""

    def make(most=0):
        hand, settler = Hand(), SimpleNamespace(unsent=0, unsent_bytes=0)
        executors = SimpleNamespace(queued=0)
        return Bounds(WorkerConfig(slots=10), hand, settler, executors, most), hand, settler, executors

    return make


def test_what_is_in_hand_takes_its_slots(parts):
    bounds, hand, _, _ = parts()
    assert (bounds.free(), bounds.to_read()) == (10, 10)
    hand.count = 7
    assert (bounds.free(), bounds.to_read()) == (3, 3)


def test_nothing_is_read_while_twice_the_slots_wait_unsent(parts):
    bounds, _, settler, _ = parts()
    settler.unsent = 19
    assert bounds.to_read() == 10
    settler.unsent = 20
    assert bounds.to_read() == 0


def test_nothing_is_read_while_64_mb_wait_unsent(parts):
    bounds, _, settler, _ = parts()
    settler.unsent_bytes = MOST_UNSENT_BYTES - 1
    assert bounds.to_read() == 10
    settler.unsent_bytes = MOST_UNSENT_BYTES
    assert bounds.to_read() == 0
    assert MOST_UNSENT_BYTES == 64 * 1024 * 1024


def test_a_small_read_is_not_worth_it_while_something_waits_for_its_turn(parts):
    bounds, hand, _, executors = parts()
    executors.queued, hand.count = 1, 6
    assert bounds.to_read() == 0
    hand.count = 5
    assert bounds.to_read() == 5


def test_no_more_is_taken_than_max_tasks_leaves(parts):
    bounds, hand, _, _ = parts(most=3)
    assert bounds.free() == 3
    hand.taken = 2
    assert (bounds.free(), bounds.to_read()) == (1, 1)
    hand.taken = 3
    assert bounds.to_read() <= 0


def test_there_is_a_row_of_the_table_for_everything_that_is_held(parts):
    bounds, hand, _, _ = parts()
    hand.held = dict.fromkeys(range(10 * ROWS_PER_SLOT - 2))
    assert bounds.free() == 2
