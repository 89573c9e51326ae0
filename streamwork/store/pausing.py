"""Pausing and resuming: the mark, and what lets task messages go on."""

from __future__ import annotations

from streamwork.model.pausing import HELD_FROM
from streamwork.store.commands import Command, Script, call_script
from streamwork.store.keys import QueueKeys

PAUSE = Script("pause")
UNHOLD = Script("unhold")


def pause(keys: QueueKeys, mark: str, known: bytes) -> Command[bool]:
    """Set a mark, or take it away where nothing is known of it; answers whether that changed anything."""
    used = (keys.paused, keys.control, keys.parked, keys.wake)
    return call_script(PAUSE, used, (mark, known), bool)


def unhold(keys: QueueKeys, most: int) -> Command[int]:
    """Make what waited for tasks that are paused no longer due now; answers how many that were."""
    return call_script(UNHOLD, (keys.due, keys.paused, keys.control), (HELD_FROM, most), int)
