"""Taps: groups that read lanes along with the workers, and own nothing; see `scripts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streamwork.store.commands import Arg, Command, Script, call_script
from streamwork.store.keys import QueueKeys

TAP, TAP_READ, UNTAP = Script("tap"), Script("tap_read"), Script("untap")
TAPPING = (TAP, TAP_READ, UNTAP)

# A tap that nobody has used for so long is removed.
TAP_LIFE_MS = 86_400_000


class Tapped(NamedTuple):
    """What a tap has read of one lane.

    Attributes:
        position: Up to where it was read before; empty = the stream does not exist.
        rows: Entries with their fields.
        missed: How many were added and are not there any more.
        note: What was trimmed of the lane, as it is noted; empty = nothing yet.
    """

    position: bytes
    rows: list[tuple[bytes, list[bytes]]]
    missed: int
    note: bytes


class TapRead(NamedTuple):
    """How many lanes a queue has by now, and what was read of each that was asked for; None = join first."""

    lanes: int
    tapped: list[Tapped] | None


def tap(keys: QueueKeys, name: str, lanes: Mapping[str, bytes], since: str, now_ms: int) -> Command[bool]:
    """Begin or go on with a tap on these lanes; answers whether it is new.

    Args:
        keys: The queue.
        name: The tap's.
        lanes: Lane to the id up to which it is known to have been read; empty = not known.
        since: Id behind which a new tap begins; ``$`` = now.
        now_ms: Kept as the beginning of a new one.
    """
    args: list[Arg] = [name, TAP_LIFE_MS, since, now_ms]
    for lane, read in lanes.items():
        args += (lane, read)
    return call_script(TAP, (keys.tap(name), keys.taps, keys.added, *map(keys.lane, lanes)), args, bool)


def tap_read(keys: QueueKeys, name: str, lanes: Sequence[str], most: int, most_bytes: int) -> Command[TapRead]:
    """Read what is new to a tap: `most` messages at most, and not many more bytes than `most_bytes`."""
    used = (keys.tap(name), keys.taps, keys.added, keys.lanes, keys.trimmed, *map(keys.lane, lanes))

    def read(reply: list[Any]) -> TapRead:
        return TapRead(reply[0], [Tapped(*one) for one in reply[1:]]) if reply else TapRead(0, None)

    return call_script(TAP_READ, used, (name, TAP_LIFE_MS, most, most_bytes, *lanes), read)


def untap(keys: QueueKeys, name: str, lanes: Sequence[str], *, only_dead: bool) -> Command[bool]:
    """Remove a tap; answers whether there was one. With `only_dead`, one that somebody uses stays."""
    used = (keys.tap(name), keys.taps, *map(keys.lane, lanes))
    return call_script(UNTAP, used, (name, "dead" if only_dead else "any"), bool)
