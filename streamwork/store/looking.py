"""Read several things of one queue at one instant, also from a Redis that is full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamwork.store.commands import Arg, Command, Script, call_script, raw

LOOK = Script("look")

# Where the key stands, for the commands that do not name it first.
_KEY_AT = {"XINFO": 2, "TIME": 0}


def look(commands: Sequence[Command[Any]]) -> Command[list[Any]]:
    """Return the plain read-only commands as one; its answer is the list of theirs, an exception for one refused."""
    keys: dict[str, None] = {}
    argv: list[Arg] = []
    for command in commands:
        place = _KEY_AT.get(str(command.args[0]), 1)
        if place:
            keys[str(command.args[place])] = None
        argv += (len(command.args), *command.args)
    return call_script(LOOK, list(keys), argv, raw)
