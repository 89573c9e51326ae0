"""What keeps lanes whole: their marks and history, and the way back from a lost consumer group; see `scripts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from streamwork.store.commands import Command, Script, call_script
from streamwork.store.keys import QueueKeys

HEAL = Script("heal")
RESTORE = Script("restore")
MAINTAIN = Script("maintain")
TRIM = Script("trim")


def heal(keys: QueueKeys, lane: str, now_ms: int) -> Command[str]:
    """Make a lane's lost group anew.

    Answers the mark behind which `restore` has to look, ``there``, or ``gone n``: the lane itself was deleted, with so
    many unsettled messages; ``gone -`` where that is not known either, as after FLUSHALL.
    """
    return call_script(
        HEAL,
        (keys.lane(lane), keys.lanes, keys.low, keys.restoring, keys.control, keys.kept, keys.due, keys.due_body,
         keys.moved, keys.suspects, keys.settled, keys.added),
        (lane, now_ms), bytes.decode,
    )  # fmt: skip


class Restored(NamedTuple):
    """The note after a step (empty = all is done, None = it had changed) and how many entries were given back."""

    note: bytes | None
    entries: int


def restore(
    keys: QueueKeys, lane: str, note: bytes, to: bytes, most: int, settled: Sequence[bytes]
) -> Command[Restored]:
    """Give back unsettled entries of a lane whose group was lost.

    Args:
        keys: The queue.
        lane: The lane.
        note: What `keys.restoring` says of it.
        to: The last entry to look at.
        most: Entries looked at, ≥ 1.
        settled: What the journal says was settled, between the note's mark and `to`.
    """
    return call_script(
        RESTORE,
        (keys.lane(lane), keys.returned, keys.restoring, keys.control, keys.bell(lane)),
        (lane, note, to, most, *settled),
        lambda reply: Restored(None if reply[0] == b"changed" else reply[0], reply[1]),
    )


class Maintained(NamedTuple):
    """Entries trimmed, the low mark, and the first entry above it; empty = there is none."""

    trimmed: int
    low: bytes
    first_open: bytes


class Bounds(NamedTuple):
    """What makes history go early.

    Attributes:
        entries: A lane with more of them is not held back by pending entries: their bodies are copied (rule 31).
        entry_bytes: The same by what the lane takes in memory.
        nearly_full_ms: For so long large results are dropped, because Redis is nearly full (rule 32); 0 = it is not.
    """

    entries: int = 100_000
    entry_bytes: int = 67_108_864
    nearly_full_ms: int = 0


BOUNDS = Bounds()


def maintain(
    keys: QueueKeys, lane: str, oldest_kept: str, most: int, now_ms: int, bounds: Bounds = BOUNDS, why: str = ""
) -> Command[Maintained]:
    """Keep a lane's place in the list, low mark, counters and history.

    The journal is needed from the time of the first entry above the mark on: a lost group is restored with it.
    `why` is what readers are told of what goes.
    """
    return call_script(
        MAINTAIN,
        (keys.lane(lane), keys.low, keys.added, keys.settled, keys.lanes, keys.control, keys.restoring, keys.kept,
         keys.nearly_full, keys.trimmed),
        (lane, oldest_kept, most, now_ms, *bounds, why),
        lambda reply: Maintained(*reply),
    )  # fmt: skip


def trim(keys: QueueKeys, oldest_kept: str, most: int, now_ms: int, why: str) -> Command[int]:
    """Trim the journal below an id; answers how many records went.

    Args:
        keys: The queue.
        oldest_kept: The first id to keep.
        most: About so many at most, whole nodes of the stream; 0 = exactly all below it.
        now_ms: Now.
        why: What readers are told of what goes.
    """
    return call_script(TRIM, (keys.journal, keys.trimmed), (oldest_kept, most, now_ms, why), int)
