"""What can be paused, what that is called in Redis, and where the task messages of a paused task wait."""

from __future__ import annotations

import hashlib

from streamwork.model.flow import group_line

# Scores in due from here on are no instants: the year 9999 ends below. Each paused task has one of its own, so that
# what waits for it is found without looking at what waits for others; `unhold.lua` knows this number and the next.
HELD_FROM = 300_000_000_000_000
_HEX_DIGITS = 12

QUEUE = "queue"
TASK, GROUP = "task:", "group:"


def held_score(task: str) -> int:
    """Return the score in due of what waits until a task is resumed."""
    return HELD_FROM + int(hashlib.sha1(task.encode()).hexdigest()[:_HEX_DIGITS], 16)  # noqa: S324 - as Lua has it


def is_held(score: float) -> bool:
    """Whether a score in due is no instant, but stands for a paused task."""
    return score >= HELD_FROM


def mark_of(task: str | None = None, group: str | None = None) -> str:
    """Return the field of ``q:paused`` for a task or a group; without either the whole queue's."""
    if task is not None:
        return TASK + task
    # As flow.lua finds it: what follows "g:" in the name of the group's line.
    return QUEUE if group is None else GROUP + group_line(group)[2:]


def line_of(mark: str) -> str:
    """Return the line in which a paused group waits; empty = the mark is none of a group."""
    return f"g:{mark.removeprefix(GROUP)}" if mark.startswith(GROUP) else ""


def described(mark: str, queue: str) -> str:
    """Say what a mark of a queue stops."""
    if mark == QUEUE:
        return f"queue {queue} is paused"
    kind, _, name = mark.partition(":")
    return f"{kind} {name} is paused on queue {queue}"


def option_of(mark: str, queue: str) -> str:
    """Return the options of ``streamwork resume`` that take a mark away."""
    kind, _, name = mark.partition(":")
    return f"--queue {queue}" if mark == QUEUE else f"--{kind} {name}"
