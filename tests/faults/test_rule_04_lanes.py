"""Rule 4: a lane is never without its group, no group hides an entry, and lanes are bounded."""

from __future__ import annotations

from contextlib import suppress

import pytest

from streamwork.errors import StoreError
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.failures import NoGroup
from tests.faults.proof import must_fail
from tests.redis.kit import LANE, outgoing


def send(driver, keys, *messages, number=1):
    lanes = list(dict.fromkeys(message.lane for message in messages))
    items = [part for message in messages for part in (lanes.index(message.lane) + 1, message.body)]
    return driver.run(scripts.enqueue(keys, "s", number, lanes, items, 1, 2))


def bodies(own, keys):
    """Return what a reader gets of the lane, None where it has no group."""
    try:
        reply = own.run(scripts.read_new([(keys.lane(LANE),)], "w", 10, None))
    except NoGroup:
        return None
    return [fields[1] for _, fields in reply[0][1]] if reply else []


def new_lane(own, keys):
    message = outgoing()
    send(own, keys, message)
    assert bodies(own, keys) == [message.body], "a new lane cannot be read"


def test_a_lane_comes_with_its_group(own, own_keys):
    new_lane(own, own_keys)


def test_without_that_it_cannot_be_read_until_a_worker_heals_it(own, own_keys):
    must_fail("group_with_its_stream", "cannot be read", new_lane, own, own_keys)


def late_group(own, keys, count):
    """A stream that someone made by hand, so that the group comes after the entry."""
    own.run(plain("XADD", keys.lane(LANE), "*", "d", "first"))
    messages = [outgoing() for _ in range(count)]
    send(own, keys, *messages)
    assert bodies(own, keys) == [b"first", *(message.body for message in messages)], "a group hides what came before"


@pytest.mark.parametrize("count", [1, 2])
def test_a_group_that_comes_late_hides_nothing(own, own_keys, count):
    late_group(own, own_keys, count)


@pytest.mark.parametrize("count", [1, 2])
def test_created_at_the_end_it_does(own, own_keys, count):
    must_fail("group_at_the_start", "hides what came before", late_group, own, own_keys, count)


def too_many_lanes(own, keys):
    for number, level in enumerate("012", 1):
        with suppress(StoreError):
            send(own, keys, outgoing(f"{level}:"), number=number)
    assert own.run(plain("HLEN", keys.lanes)) == 2, "more lanes than the bound"


def test_lanes_are_bounded(own, own_keys):
    too_many_lanes(own, own_keys)


def test_without_the_bound_they_are_not(own, own_keys):
    must_fail("lane_bound", "more lanes than the bound", too_many_lanes, own, own_keys)
