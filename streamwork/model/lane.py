"""Lanes: which (priority level, tag set) a task message waits in, and which lanes a worker reads."""

from __future__ import annotations

import re
from collections.abc import Iterable

from streamwork.errors import ConfigError

LOWEST_PRIORITY, DEFAULT_PRIORITY, HIGHEST_PRIORITY = 0, 5, 9
# A worker notes the lane of what it runs in 255 bytes of shared memory, its level and the colon included.
_LONGEST_TAGS = 253
_LANE = re.compile(r"[0-9]{1,3}:.*", re.DOTALL)
# Four streams are the most that one sweep can afford; 9 has its own so that "before everything" exists (rule 4).
_LEVEL_OF_PRIORITY = (0, 0, 0, 1, 1, 1, 2, 2, 2, 3)


def lane_name(priority: int, tags: Iterable[str]) -> str:
    """Return ``<level>:<sorted tags>``; raises ConfigError for a priority outside 0–9 or tags that are too long."""
    if (
        isinstance(priority, bool)
        or not isinstance(priority, int)
        or not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY
    ):
        raise ConfigError(f"priority {priority!r}: use a whole number from 0 (last) to 9 (first)")
    joined = ",".join(sorted(tags))
    if len(joined) > _LONGEST_TAGS:
        raise ConfigError(f"tags {joined[:60]}…: {_LONGEST_TAGS} characters in all at most, commas included")
    return f"{_LEVEL_OF_PRIORITY[priority]}:{joined}"


def is_lane(name: str) -> bool:
    """Whether this can be the name of a lane; anybody can write other things beside them."""
    return _LANE.fullmatch(name) is not None


def lane_tags(lane: str) -> frozenset[str]:
    """Return the tags that a worker must offer to read this lane."""
    tags = lane.partition(":")[2]
    return frozenset(tags.split(",")) if tags else frozenset()


def readable_lanes(lanes: Iterable[str], offered: frozenset[str]) -> list[str]:
    """Return the lanes that a worker offering these tags reads, highest level first, most specific tag set first.

    A name that is no lane's is left out: whoever wrote it there must not stop the others.
    """
    mine = [lane for lane in lanes if is_lane(lane) and lane_tags(lane) <= offered]
    return sorted(mine, key=lambda lane: (-int(lane.partition(":")[0]), -len(lane_tags(lane)), lane))
