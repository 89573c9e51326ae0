"""Ids: time-ordered, unique, and readable back to their instant."""

from __future__ import annotations

import os
import uuid

import pytest

from streamwork.clock import SYSTEM_CLOCK
from streamwork.ids import new_task_id, random_id, task_id_at_ms


def test_a_task_id_is_a_uuid_7_that_knows_its_instant():
    before_ms = SYSTEM_CLOCK.now_ms()
    task_id = new_task_id()
    parsed = uuid.UUID(task_id)
    assert (parsed.version, parsed.variant, parsed.hex) == (7, uuid.RFC_4122, task_id)
    assert before_ms <= task_id_at_ms(task_id) <= SYSTEM_CLOCK.now_ms()
    assert task_id_at_ms(str(parsed)) == task_id_at_ms(task_id)


def test_ids_made_later_sort_later_to_the_millisecond():
    instants = [task_id_at_ms(task_id) for task_id in sorted(new_task_id() for _ in range(1_000))]
    assert instants == sorted(instants)


def test_ids_do_not_repeat_and_use_all_their_random_bits():
    ids = {new_task_id() for _ in range(5_000)}
    assert len(ids) == 5_000
    for place in [*range(13, 16), *range(17, 32)]:
        assert len({task_id[place] for task_id in ids}) == 16
    assert {task_id[16] for task_id in ids} == set("89ab")


def test_forked_processes_do_not_share_a_sequence():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, "".join(new_task_id()[12:] for _ in range(100)).encode())
        os._exit(0)
    os.close(write)
    theirs = os.read(read, 4_000).decode()
    os.close(read)
    os.waitpid(pid, 0)
    mine = {new_task_id()[12:] for _ in range(100)}
    assert mine.isdisjoint(theirs[at : at + 20] for at in range(0, 2_000, 20))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0" * 32,
        "0198c0ffee004abc8def0123456789ab",
        "zzzzzzzzzzzz7" + "0" * 19,
        "0198c0ffee007abc8def0123456789a",
    ],
)
def test_what_is_no_task_id_has_no_instant(text):
    assert task_id_at_ms(text) is None


@pytest.mark.parametrize("bits", [24, 48, 96])
def test_random_ids_are_as_long_as_asked_for(bits):
    assert len(random_id(bits)) == bits // 4
    assert len({random_id(bits) for _ in range(50)}) == 50
