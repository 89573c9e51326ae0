"""What is known of one task message, and how the records that are kept of it add to that."""

from __future__ import annotations

from typing import Any

import msgspec

from streamwork.errors import DecodeError, WireError
from streamwork.model.state import State
from streamwork.wire.codec import unpacker
from streamwork.wire.message import (
    FIRST_ATTEMPT,
    Attempt,
    Failure,
    JournalRecord,
    decode_attempt,
    decode_dead_letter,
    decode_failure,
    decode_message,
    decode_result,
)
from streamwork.wire.origin import origin_of

_anything = unpacker(Any)


class TaskView(msgspec.Struct):
    """What is known of one task message; what is not is None or empty.

    Attributes:
        id, queue, task: Task id, where it was found, task name.
        state: Where it is in its life; ``unknown`` when its entry was settled and neither result nor journal is kept.
        args, kwargs: Arguments in their plain form; None = the body is not kept.
        lane, entry, created_at_ms: Lane name; entry id of the last known delivery; from the id.
        attempt, round: Run that comes next, goes on or was the last; grows when a dead letter is retried.
        crashes, run_at_ms: Processes that died while it ran; when it is due.
        consumer, worker: Who has it, and that consumer's registration.
        result, failure: What it returned, in its plain form; type, message and traceback of what ended it.
        reason, died_at_ms: Why it is dead, and since when.
        cancel_asked, terminate_asked: It is marked as cancelled; a run that goes on is to be ended too.
        journal: What came of each delivery, oldest first.
        is_held, parked_behind: It is set aside until its paused task is resumed; the limit that it waits for.
        group: Its group's own line; "" = none is known.
        parent, replay_of: Ids of the task messages that sent it and that it repeats; "" = none is known.
        is_whole: False when a bound was reached while looking, so that more may be there.
    """

    id: str
    queue: str = ""
    state: State = State.UNKNOWN
    task: str = ""
    args: list[Any] | None = None
    kwargs: dict[str, Any] = {}
    lane: str = ""
    entry: str = ""
    created_at_ms: int | None = None
    attempt: int = 1
    round: int = 1
    crashes: int = 0
    run_at_ms: int | None = None
    consumer: str = ""
    worker: dict[str, Any] = {}
    result: Any = None
    failure: Failure | None = None
    reason: str = ""
    died_at_ms: int | None = None
    cancel_asked: bool = False
    terminate_asked: bool = False
    journal: list[JournalRecord] = []
    is_held: bool = False
    parked_behind: str = ""
    group: str = ""
    is_whole: bool = True
    parent: str = ""
    replay_of: str = ""


def read_last_record(view: TaskView, last: JournalRecord) -> None:
    """Add what the newest journal record says."""
    view.task, view.parent = view.task or last.task, view.parent or last.parent
    view.crashes = max(view.crashes, last.crashes)
    if view.state == State.UNKNOWN:
        view.lane, view.entry = view.lane or last.lane, last.entry.decode()
        view.attempt, view.round, view.consumer = last.attempt, last.round, last.consumer
        if last.state in State.__members__.values():
            view.state = State(last.state)
            view.reason = last.detail


def read_result(view: TaskView, record: bytes) -> None:
    """Add what a result record says; one that cannot be read adds nothing."""
    result = decoded(decode_result, record)
    if result is None:
        return
    if result.state in State.__members__.values():
        view.state = State(result.state)
    if view.state in (State.SUCCEEDED, State.SKIPPED):
        view.result = decoded(_anything, result.payload)
    else:
        view.failure = view.failure or decoded(decode_failure, result.payload)


def read_dead(view: TaskView, data: bytes) -> None:
    """Add what a dead letter says; of one that cannot be read only that it is one."""
    letter = decoded(decode_dead_letter, data)
    view.state = State.DEAD
    if letter is None:
        return
    view.task, view.lane, view.reason, view.failure = letter.task, letter.lane, letter.reason, letter.failure
    view.died_at_ms = letter.died_at_ms
    attempt = decoded(decode_attempt, letter.attempt.encode())
    if attempt is not None:
        read_attempt(view, attempt)
    read_body(view, letter.body)


def read_attempt(view: TaskView, attempt: Attempt = FIRST_ATTEMPT) -> None:
    """Add an attempt record: which run and round it is, and how many crashed."""
    view.attempt, view.crashes, view.round = attempt.attempt, attempt.crashes, attempt.round


def read_body(view: TaskView, body: bytes) -> None:
    """Add what a stored message asks for; one that cannot be read adds nothing."""
    message = decoded(decode_message, body)
    if message is None:
        return
    view.task = message.task
    view.parent, _ = origin_of(message.options)
    view.replay_of = (message.options.replay_of if message.options is not None else None) or ""
    view.args = decoded(_anything, bytes(message.args))
    view.kwargs = decoded(_anything, bytes(message.kwargs)) or {}


def decoded(decode: Any, data: bytes) -> Any:
    """Decode, or None: what another version or a stranger wrote must not hide the rest."""
    try:
        return decode(data)
    except (DecodeError, WireError):
        return None
