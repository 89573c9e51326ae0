"""Which past task messages are sent anew, with which arguments; nothing is sent here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from streamwork.errors import ArgumentError, DecodeError, WireError
from streamwork.history import HistoryOptions
from streamwork.ids import task_id_at_ms
from streamwork.model.arguments import changed
from streamwork.model.history import DONE_TO_DEAD, HistoryGap, HistoryRecord
from streamwork.model.lane import is_lane
from streamwork.model.replay import ReplayCall
from streamwork.replay.host import Host
from streamwork.task import Task
from streamwork.wire.codec import unpacker
from streamwork.wire.message import NO_OPTIONS, Options, TaskMessage, decode_message
from streamwork.wire.origin import repeated
from streamwork.wire.signature import pack_call

_anything = unpacker(Any)
Packed = tuple[bytes, bytes | None]


class Chosen(NamedTuple):
    """A past task message, and what is sent anew of it.

    Attributes:
        call: What is told of it.
        packed: Arguments; empty where `call.why` says why it is not sent.
        options: What the message carries beside them.
    """

    call: ReplayCall
    packed: Packed = (b"", None)
    options: Options = NO_OPTIONS


def choose(app: Host, queue: str, into: str, changes: Mapping[str, Any], asked: HistoryOptions) -> Iterator[Chosen]:
    """Yield each past task message that fits once, whatever number of attempts it had.

    Raises:
        ArgumentError: A call fits its task's signature, and does not with `changes`.
        What `Remembering.history` raises.
    """
    seen: set[str] = set()
    for one in app.history(queue, **asked):
        if isinstance(one, HistoryGap) or one.id in seen or one.state in DONE_TO_DEAD:
            continue
        seen.add(one.id)
        yield _chosen(app, one, into, changes)


def _chosen(app: Host, record: HistoryRecord, into: str, changes: Mapping[str, Any]) -> Chosen:
    call = ReplayCall(
        id=record.id, task=record.task, queue=into, lane=record.lane, args=record.args, kwargs=record.kwargs,
        made_at_ms=task_id_at_ms(record.id) or record.enqueued_at_ms or record.ended_at_ms,
    )  # fmt: skip
    if record.body is None:
        return Chosen(msgspec.structs.replace(call, why="its arguments are not kept any more"))
    try:
        message = decode_message(record.body)
    except DecodeError as error:
        return Chosen(msgspec.structs.replace(call, why=f"it cannot be read: {error}"))
    if record.args is None or not is_lane(record.lane):
        return Chosen(msgspec.structs.replace(call, why="its arguments cannot be read, or its lane"))
    task = app.tasks.get(record.task)
    try:
        packed = _packed(task, message, record, changes, app.argument_names(record.task))
    except WireError as error:
        if changes and _fits(task, message):
            raise ArgumentError(f"{error}; nothing was sent") from error
        return Chosen(msgspec.structs.replace(call, why=f"incompatible: {error}"))
    args, kwargs = _anything(packed[0]), _anything(packed[1]) if packed[1] else {}
    return Chosen(msgspec.structs.replace(call, args=args, kwargs=kwargs), packed, _options(record, message))


def _packed(
    task: Task[..., Any] | None, message: TaskMessage, record: HistoryRecord, changes: Mapping[str, Any],
    names: Sequence[str],
) -> Packed:  # fmt: skip
    if changes:
        args, kwargs = changed(record.args or [], record.kwargs, names, changes)
        return pack_call(args, kwargs) if task is None else task.signature.encode(tuple(args), kwargs)
    if task is not None:
        task.signature.decode(message.args, message.kwargs)
    kwargs_raw = bytes(message.kwargs)
    return bytes(message.args), None if kwargs_raw == b"\xc0" else kwargs_raw


def _fits(task: Task[..., Any] | None, message: TaskMessage) -> bool:
    if task is None:
        return True
    try:
        task.signature.decode(message.args, message.kwargs)
    except WireError:
        return False
    return True


def _options(record: HistoryRecord, message: TaskMessage) -> Options:
    """Return the message's own options, but for its expiry and its parent, which are past; its trace becomes a link."""
    options = message.options or NO_OPTIONS
    headers = repeated(options.headers)
    return msgspec.structs.replace(options, replay_of=record.id, headers=headers, expires_at_ms=None, begins=False)
