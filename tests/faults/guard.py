"""What a guard is: places in the source, with what would stand there without it."""

from __future__ import annotations

from typing import NamedTuple

LUA = "streamwork/store/lua/"
STORE = "streamwork/store/"
BROKER = "streamwork/broker/"
WORKER = "streamwork/worker/"


class Change(NamedTuple):
    """One place of a guard.

    Attributes:
        file: Path from the project's root.
        on: The text that is the guard, or holds it; stands in the file once.
        off: What stands there without the guard.
    """

    file: str
    on: str
    off: str


class Guard(NamedTuple):
    """One guard.

    Attributes:
        rule: Number in the protocol.
        says: What it keeps from happening.
        changes: How it is switched off.
    """

    rule: int
    says: str
    changes: tuple[Change, ...]


def guard(rule, says, *changes):
    """Return a guard; each change is (file, on, off)."""
    return Guard(rule, says, tuple(Change(*change) for change in changes))
