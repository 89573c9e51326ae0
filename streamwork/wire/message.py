"""The stored form of a task message, its attempt record, results, journal records and dead letters.

Versions: a reader accepts its own version and refuses a higher one as undecodable, so that a deploy rolls workers
before producers. New fields go to the end with defaults; a field is never retyped (golden files in tests hold this).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from streamwork.errors import DecodeError

WIRE_VERSION = 1
NO_KWARGS = msgspec.Raw(b"\xc0")


class Options(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={
        "timeout_ms": "t", "keep_ms": "k", "retry": "m", "replay_of": "o", "headers": "h", "expires_at_ms": "x",
        "soft_ms": "s", "begins": "b",
    },
):  # fmt: skip
    """What one task message carries beside its arguments; absent fields follow the task's declaration.

    Attributes:
        timeout_ms: Own time limit; 0 = none; None = the task's.
        keep_ms: Own result retention; 0 = keep none; None = the task's.
        retry: Own policy for every exception: max_attempts, base, factor, max_delay, jitter; None = the task's.
        replay_of: Id of the task message this one repeats.
        headers: Free texts for middleware and tracing.
        expires_at_ms: It does not begin behind this instant; None = whenever.
        soft_ms: Own soft limit; 0 = none; None = the task's.
        begins: It has a rate, or a name that is free once it starts: the worker asks Redis before it runs the body.
    """

    timeout_ms: int | None = None
    keep_ms: int | None = None
    retry: tuple[int, float, float, float, bool] | None = None
    replay_of: str | None = None
    headers: dict[str, str] | None = None
    expires_at_ms: int | None = None
    soft_ms: int | None = None
    begins: bool = False


NO_OPTIONS = Options()


class TaskMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a lane entry's ``d`` field holds.

    Attributes:
        version: Wire version.
        id: UUIDv7, 32 hex digits.
        task: Task name.
        args: Positional arguments, a msgpack array.
        kwargs: Keyword arguments, a msgpack map, or nil.
        options: See `Options`; nil = none.
        reply_to: Client id whose reply stream hears of the end; nil = nobody.
    """

    version: int
    id: str
    task: str
    args: msgspec.Raw
    kwargs: msgspec.Raw = NO_KWARGS
    options: Options | None = None
    reply_to: str | None = None


# What settle.lua writes instead of a large value while Redis is nearly full (rule 32); no value begins so.
DROPPED = b"\xc1dropped: memory"

_pack = msgspec.msgpack.Encoder().encode
_unpack_message = msgspec.msgpack.Decoder(TaskMessage).decode
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_unpack_text = msgspec.msgpack.Decoder(str).decode
_ID = re.compile(r"[0-9a-f]{32}")


def encode_message(
    task_id: str, task: str, args: bytes, kwargs: bytes | None, options: Options, reply_to: str | None
) -> bytes:
    """Return the body of a task message."""
    raw_kwargs = NO_KWARGS if kwargs is None else msgspec.Raw(kwargs)
    if options is NO_OPTIONS:
        return _pack((WIRE_VERSION, task_id, task, msgspec.Raw(args), raw_kwargs, None, reply_to))
    return _pack((WIRE_VERSION, task_id, task, msgspec.Raw(args), raw_kwargs, options, reply_to))


def decode_message(body: bytes) -> TaskMessage:
    """Return the task message in a body; raises DecodeError for bytes that are not ours or of a newer version."""
    try:
        message = _unpack_message(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a task message: {error}") from error
    if message.version != WIRE_VERSION:
        raise DecodeError(f"wire version {message.version}, and this is version {WIRE_VERSION}: upgrade this worker")
    return message


def remains(body: bytes) -> TaskMessage | None:
    """Return what a body that `decode_message` refused still tells: its id, its task and who waits for its end.

    Fields are never retyped, so this holds for newer versions too. None where not even the id can be read.
    """
    try:
        items = _split(body)
        task_id = _unpack_text(items[1])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
        return None
    if not _ID.fullmatch(task_id):
        return None
    task, reply_to = _text_at(items, 2), _text_at(items, 6)
    return TaskMessage(WIRE_VERSION, task_id, task or "", msgspec.Raw(b"\x90"), reply_to=reply_to)


def _text_at(items: list[msgspec.Raw], index: int) -> str | None:
    try:
        return _unpack_text(items[index])
    except (msgspec.MsgspecError, UnicodeDecodeError, IndexError):
        return None


class Attempt(NamedTuple):
    """A message's past, carried through retries in the ``a`` field as ``attempt,crashes,lost,round,deferrals``.

    Attributes:
        attempt: The run this delivery is for; 1 = first.
        crashes: Processes that died while it ran (rule 17).
        lost: Times its owner vanished with the host, start unknown.
        round: Grows when a dead letter is retried (I3).
        deferrals: Times it met only workers that do not know its task (rule 9).
    """

    attempt: int = 1
    crashes: int = 0
    lost: int = 0
    round: int = 1
    deferrals: int = 0


FIRST_ATTEMPT = Attempt()
# Larger counts are nobody's, and beyond 2**64 no record could hold them.
_MOST = 2**31


def encode_attempt(attempt: Attempt) -> str:
    """Return the ``a`` field."""
    return ",".join(map(str, attempt))


def decode_attempt(field: bytes) -> Attempt:
    """Return the attempt record in an ``a`` field; raises DecodeError."""
    try:
        attempt = Attempt(*map(int, field.split(b",")))
    except (ValueError, TypeError) as error:
        raise DecodeError(f"not an attempt record: {field[:60]!r}") from error
    if not all(0 <= number < _MOST for number in attempt):
        raise DecodeError(f"not an attempt record: {field[:60]!r}")
    return attempt


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why a task message ended without success: type name, message, traceback text."""

    type_name: str
    message: str
    traceback: str = ""


class Result(NamedTuple):
    """A result record: the token of the delivery that committed it, the state, and the packed value or `Failure`."""

    token: str
    state: str
    payload: bytes


def encode_result(token: str, state: str, payload: bytes) -> bytes:
    """Return a result record; the settle script compares its first line."""
    return b"%b\n%b\n%b" % (token.encode(), state.encode(), payload)


def decode_result(record: bytes) -> Result:
    """Return the parts of a result record; raises DecodeError."""
    parts = record.split(b"\n", 2)
    if len(parts) != 3:
        raise DecodeError("not a result record")
    return Result(parts[0].decode(errors="replace"), parts[1].decode(errors="replace"), parts[2])


class JournalRecord(msgspec.Struct, frozen=True, array_like=True):
    """What came of one delivery; instants in ms since 1970.

    Attributes:
        version: Wire version.
        id: Task id.
        task: Task name.
        state: How the delivery ended: a state, or ``retried``.
        lane: Lane name.
        entry: Entry id.
        attempt: Which run.
        consumer: Who ran it.
        started_at_ms, ended_at_ms: When the body began, 0 = it never did; when it ended.
        detail: Error text or reason, empty for success.
        crashes: Processes that had died while they ran it.
        result_bytes: Size of what it returned, packed; 0 = nothing, or the record is of an older version.
        error_type, digest: Class of the failure, and what those that came the same way share (`model.digest`).
        parent, trace_id: Id of the message that sent it, and of its trace, where its headers say so.
        round: Grows when a dead letter is retried (I3).
    """

    version: int
    id: str
    task: str
    state: str
    lane: str
    entry: bytes
    attempt: int
    consumer: str
    started_at_ms: int
    ended_at_ms: int
    detail: str = ""
    crashes: int = 0
    result_bytes: int = 0
    error_type: str = ""
    digest: str = ""
    parent: str = ""
    trace_id: str = ""
    round: int = 1


class DeadLetter(msgspec.Struct, frozen=True, array_like=True):
    """A task message that will not run again by itself.

    Attributes:
        version: Wire version.
        id: Task id, or ``entry-<lane>-<entry>`` where the body has none.
        task: Task name, empty where unknown.
        lane: Where it waited.
        reason: ``failed``, ``rejected``, ``quarantined``, ``lost``, ``undecodable``, ``unknown_task`` or
            ``settle_error``.
        failure: What was raised, or the evidence.
        attempt: The attempt record.
        died_at_ms: When.
        body: The stored body, or every field of a garbage entry, packed.
        limits: Packed limits that it asks for anew when it is retried (flow.lua); settle.lua fills them in, since what
            has ended has them no more. Empty = none.
    """

    version: int
    id: str
    task: str
    lane: str
    reason: str
    failure: Failure
    attempt: str
    died_at_ms: int
    body: bytes
    limits: bytes = b""


_dead = msgspec.msgpack.Decoder(DeadLetter)
_failure = msgspec.msgpack.Decoder(Failure)
_journal = msgspec.msgpack.Decoder(JournalRecord)


def encode_record(record: JournalRecord | DeadLetter | Failure | tuple[Any, ...]) -> bytes:
    """Return a record's bytes; a plain tuple in field order is the fast form of a `JournalRecord`."""
    return _pack(record)


def decode_dead_letter(data: bytes) -> DeadLetter:
    """Return a dead letter; raises DecodeError."""
    return _decoded(_dead, data)  # type: ignore[no-any-return]


def decode_failure(data: bytes) -> Failure:
    """Return a failure; raises DecodeError."""
    return _decoded(_failure, data)  # type: ignore[no-any-return]


def decode_journal(data: bytes) -> JournalRecord:
    """Return a journal record; raises DecodeError."""
    return _decoded(_journal, data)  # type: ignore[no-any-return]


def _decoded(decoder: Any, data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a record of this version: {error}") from error
