"""The guards of the protocol as places in the source: what stands there, and what would stand there without it.

A test switches one off (`tests.faults.unguarded`) to see its scenario fail. Nothing in the product knows of this, so no
setting of a user can. `test_guards.py` fails when a guard's text has moved on and the table has not.
"""

from __future__ import annotations

from typing import NamedTuple


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


LUA = "streamwork/store/lua/"
WORKER = "streamwork/worker/"

GUARDS: dict[str, Guard] = {
    "gate": Guard(
        20,
        "a success counts only if its XACK answers 1",
        (
            Change(
                LUA + "settle.lua",
                "if mine and call('XACK', stream, 'workers', entry) == 1 then",
                "call('XACK', stream, 'workers', entry)\n  if mine then",
            ),
        ),
    ),
}
