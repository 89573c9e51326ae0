"""Dead letters: what lets one run again, what changes one, and what frees one."""

from __future__ import annotations

import hashlib

from streamwork.store.commands import Command, Script, call_script
from streamwork.store.keys import QueueKeys

DEAD_RETRY = Script("dead_retry")
DEAD_EDIT = Script("dead_edit")
DEAD_PURGE = Script("dead_purge")
BURYING = (DEAD_RETRY, DEAD_EDIT, DEAD_PURGE)


def _sha(letter: bytes) -> str:
    return hashlib.sha1(letter).hexdigest()  # noqa: S324 - what Lua in Redis has


def dead_retry(keys: QueueKeys, task_id: str, letter: bytes, due: bytes, limits: bytes, journal: bytes) -> Command[str]:
    """Let a dead letter run again; answers what dead_retry.lua says, empty = it is due now.

    Args:
        keys: Its queue.
        task_id: Its id.
        letter: As it was read.
        due: Lane, attempt record of the new round and body, a line of text each.
        limits: Packed, as flow.lua reads them; empty = none.
        journal: Record of who did it.
    """
    used = (
        keys.dead, keys.dead_body, keys.due, keys.due_body, keys.control, keys.result(task_id), keys.journal,
        *keys.flow_keys, keys.moved, keys.added,
    )  # fmt: skip
    return call_script(DEAD_RETRY, used, (task_id, _sha(letter), due, limits, journal), bytes.decode)


def dead_edit(keys: QueueKeys, task_id: str, letter: bytes, new: bytes, journal: bytes) -> Command[str]:
    """Put a changed dead letter in the place of one; answers what dead_edit.lua says, empty = done."""
    used = (keys.dead, keys.dead_body, keys.journal)
    return call_script(DEAD_EDIT, used, (task_id, _sha(letter), new, journal), bytes.decode)


def dead_purge(keys: QueueKeys, task_id: str, letter: bytes, journal: bytes) -> Command[str]:
    """Free a dead letter; answers what dead_purge.lua says, empty = done. An empty `letter` = whatever stands there."""
    used = (keys.dead, keys.dead_body, keys.result(task_id), keys.journal)
    return call_script(DEAD_PURGE, used, (task_id, _sha(letter) if letter else "", journal), bytes.decode)
