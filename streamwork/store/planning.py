"""Schedules: what keeps them and what fires them."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from streamwork.store.commands import Arg, Command, Script, call_script
from streamwork.store.keys import QueueKeys

FIRE = Script("fire")
PLAN = Script("plan")


class Fired(NamedTuple):
    """The message of one occurrence.

    Attributes:
        task_id: Its id; empty = the occurrence is passed over.
        due: Lane, attempt record and body, a line each.
        limits: Packed, as flow.lua reads them; empty = none.
    """

    task_id: str = ""
    due: bytes = b""
    limits: bytes = b""


def unique_name(schedule: str) -> str:
    """Return the name under which the messages of a schedule are unique, where they may not overlap."""
    return f"s:{schedule}"


def fire(
    keys: QueueKeys, schedule: str, record: bytes, at_ms: int | None, message: Fired, overlap: str
) -> Command[str]:
    """Send the message of an occurrence, or pass over it; answers as fire.lua says.

    Args:
        keys: The queue.
        schedule: Its name.
        record: It, as it is stored.
        at_ms: The occurrence; None = by hand.
        message: What is sent.
        overlap: ``queue``, ``skip`` or ``cancel-running``.
    """
    args: tuple[Arg, ...] = (
        schedule, hashlib.sha1(record).hexdigest(), "" if at_ms is None else at_ms, *message, overlap,  # noqa: S324
        unique_name(schedule),
    )  # fmt: skip
    used = (
        keys.schedules, keys.schedule_marks, keys.due, keys.due_body, keys.control, keys.cancelled, keys.flow,
        keys.unique,
    )  # fmt: skip
    return call_script(FIRE, used, args, bytes.decode)


def plan(keys: QueueKeys, schedule: str, mode: str, record: bytes = b"") -> Command[str]:
    """Declare, add, replace, pause, resume or remove a schedule; answers as plan.lua says."""
    used = (keys.schedules, keys.schedule_marks, keys.control)
    return call_script(PLAN, used, (schedule, mode, record), bytes.decode)
