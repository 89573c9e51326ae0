"""History that comes back from files; see `scripts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from streamwork.store.commands import Arg, Command, Script, call_script
from streamwork.store.keys import QueueKeys

IMPORT = Script("import")


class Imported(NamedTuple):
    """How many records were taken, and how many were there already; -1 and which, where one cannot be taken."""

    taken: int
    known: int


def take_records(keys: QueueKeys, life_ms: int, records: Sequence[tuple[str, bytes, bytes]]) -> Command[Imported]:
    """Take records into a queue's imported history, oldest first.

    Args:
        keys: The queue.
        life_ms: How long all of it is kept from now on, ≥ 1.
        records: Cursor, journal record, stored message (empty = not kept).
    """
    args: list[Arg] = [life_ms]
    for record in records:
        args += record
    return call_script(IMPORT, (keys.imported,), args, lambda reply: Imported(*reply))
