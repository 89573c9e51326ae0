"""What waits in an app's queues, to assert on."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from streamwork.app import Streamwork
from streamwork.broker.stats import queue_names
from streamwork.broker.steps import ask
from streamwork.connection import Connection
from streamwork.errors import ArgumentError, ConfigError, StreamworkError
from streamwork.guards import refuse_on_loop
from streamwork.handle import Sending, Switch
from streamwork.inline import InlineSending
from streamwork.model.lane import lane_tags
from streamwork.store.commands import plain
from streamwork.store.keys import GROUP, QueueKeys
from streamwork.task import Task
from streamwork.testing import private
from streamwork.wire.codec import unpacker
from streamwork.wire.message import FIRST_ATTEMPT, TaskMessage, decode_attempt, decode_message

_PAGE = 500
_POLL_S = 0.02
_unpack_args: Callable[[bytes], list[Any]] = unpacker(list[Any])
_unpack_kwargs: Callable[[bytes], dict[str, Any]] = unpacker(dict[str, Any])


class Enqueued(NamedTuple):
    """A task message that no worker has taken yet.

    Attributes:
        task: Task name.
        args: Positional arguments, of their annotated types where the task is declared here. Those given by name become
            positional as far as they can.
        kwargs: The other arguments.
        queue: Where it waits.
        tags: What a worker must offer.
        id: Task id.
        due_at_ms: When it becomes due; None = it is on its lane.
        attempt: 1, or more for a retry.
    """

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    queue: str
    tags: frozenset[str]
    id: str
    due_at_ms: int | None = None
    attempt: int = 1


def enqueued(app: Streamwork) -> list[Enqueued]:
    """Return what waits in the app's queues: lanes first, each in its order, then what is due later.

    Its queues are those of its tasks and all that something was sent to under its name. Within ``app.inline()`` it is
    what was sent in this block. Entries that are not task messages are left out.

    Raises:
        NotPrivate: Under pytest, the app is on its own Redis; see `streamwork.testing.allow`.
        StoreError: Redis cannot be asked.
        UseAsync: Called on an event loop's thread.
    """
    refuse_on_loop("enqueued", "aenqueued")
    return _look(app.sending, app.queues, app.tasks, everywhere=True)


async def aenqueued(app: Streamwork) -> list[Enqueued]:
    """Return what waits in the app's queues, from async code; as `enqueued`."""
    return await asyncio.to_thread(_look, app.sending, app.queues, app.tasks, everywhere=True)


def assert_enqueued(
    task: Task[..., Any],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    within_s: float = 0.0,
) -> Enqueued:
    """Assert that a call of this task waits in its queue (in the queue of ``task.options(queue=...)`` if given that).

    Args:
        task: The task.
        args: Its positional arguments, a tuple; with `kwargs`, compared as the function would get them, defaults
            included. Neither = any arguments.
        kwargs: Its arguments by name.
        within_s: Seconds to wait for it, for what another thread or process sends; 0 looks once.

    Returns:
        The oldest one that fits.

    Raises:
        AssertionError: There is none; the message lists what waits.
        ArgumentError: The task cannot be called like that, or `args` is no sequence.
        NotPrivate: Under pytest, its app is on its own Redis; see `streamwork.testing.allow`.
        UseAsync: Called on an event loop's thread.
    """
    refuse_on_loop("assert_enqueued", "aassert_enqueued")
    return _assert_enqueued(task, args, kwargs, within_s)


async def aassert_enqueued(
    task: Task[..., Any],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    within_s: float = 0.0,
) -> Enqueued:
    """Assert from async code that a call of this task waits in its queue; as `assert_enqueued`."""
    return await asyncio.to_thread(_assert_enqueued, task, args, kwargs, within_s)


def _assert_enqueued(
    task: Task[..., Any], args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, within_s: float
) -> Enqueued:
    if not isinstance(task, Task):
        raise ArgumentError(f"{task!r} is not a task")
    wanted = None
    if args is not None or kwargs is not None:
        if isinstance(args, (str, bytes)) or not isinstance(args or (), Sequence):
            raise ArgumentError(f"args={args!r}: give a tuple, such as ({args!r},)")
        if not isinstance(kwargs or {}, Mapping):
            raise ArgumentError(f"kwargs={kwargs!r}: give a dict of names to values")
        wanted = task.signature.decode(*task.signature.encode(tuple(args or ()), dict(kwargs or {})))
    give_up_at = time.monotonic() + within_s
    while True:
        waiting = _look(task.sending, [task.queue], {task.name: task})
        for found in waiting:
            if found.task != task.name:
                continue
            if wanted is None or _bound(task, found.args, found.kwargs) == _bound(task, *wanted):
                return found
        if time.monotonic() >= give_up_at:
            break
        time.sleep(_POLL_S)
    asked = task.name if wanted is None else _shown(task.name, *wanted)
    there = "".join(f"\n  {_shown(found.task, found.args, found.kwargs)}" for found in waiting) or " nothing"
    raise AssertionError(f"{asked} is not enqueued in queue {task.queue!r}; there waits:{there}")


def _bound(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return arguments by name as the function gets them: one that equals its default may have been left out."""
    args, kwargs = task.signature.inject(args, kwargs, None)
    bound = inspect.signature(task.function).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _shown(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return f"{name}({', '.join([*map(repr, args), *(f'{key}={value!r}' for key, value in kwargs.items())])})"


def _look(
    sending: Sending, queues: Sequence[str], tasks: Mapping[str, Task[..., Any]], *, everywhere: bool = False
) -> list[Enqueued]:
    now = sending.now if isinstance(sending, Switch) else sending
    if isinstance(now, InlineSending):
        return [
            _decoded(sent.message, sent.queue, sent.lane, tasks)
            for sent in now.sent
            if everywhere or sent.queue in queues
        ]
    if not isinstance(now, Connection):
        raise ConfigError(f"{now!r} has no queues to look into")
    private.check(now)
    if everywhere:
        queues = ask(now.driver, queue_names(now.namespace, now.known_queues.union(queues)))
    return [found for queue in queues for found in _waiting(now, now.keys(queue), tasks)]


def _waiting(connection: Connection, keys: QueueKeys, tasks: Mapping[str, Task[..., Any]]) -> Iterator[Enqueued]:
    driver = connection.driver
    lanes = sorted((lane.decode() for lane in driver.run(plain("HKEYS", keys.lanes))), key=lambda lane: -int(lane[0]))
    for lane in lanes:
        for fields in _undelivered(connection, keys.lane(lane)):
            named = dict(zip(fields[::2], fields[1::2], strict=True))
            message = _message(named.get(b"d", b""))
            if message is not None:
                attempt = decode_attempt(named[b"a"]) if b"a" in named else FIRST_ATTEMPT
                yield _decoded(message, keys.queue, lane, tasks)._replace(attempt=attempt.attempt)
    rows: list[bytes] = driver.run(plain("ZRANGE", keys.due, 0, -1, "WITHSCORES"))
    for task_id, score in zip(rows[::2], rows[1::2], strict=True):
        stored: bytes | None = driver.run(plain("HGET", keys.due_body, task_id))
        lane_name, record, body = (stored or b"\n\n").split(b"\n", 2)
        message = _message(body)
        if message is not None:
            yield _decoded(message, keys.queue, lane_name.decode(), tasks)._replace(
                due_at_ms=int(float(score)), attempt=decode_attempt(record).attempt
            )


def _undelivered(connection: Connection, stream: str) -> Iterator[list[bytes]]:
    groups: list[list[Any]] = connection.driver.run(plain("XINFO", "GROUPS", stream, if_gone=[]))
    facts = [dict(zip(group[::2], group[1::2], strict=True)) for group in groups]
    last = next((group[b"last-delivered-id"] for group in facts if group[b"name"] == GROUP.encode()), b"0-0")
    while True:
        entries = connection.driver.run(plain("XRANGE", stream, b"(" + last, "+", "COUNT", _PAGE))
        for entry, fields in entries:
            last = entry
            yield fields
        if len(entries) < _PAGE:
            return


def _message(body: bytes) -> TaskMessage | None:
    try:
        return decode_message(body)
    except StreamworkError:
        return None


def _decoded(message: TaskMessage, queue: str, lane: str, tasks: Mapping[str, Task[..., Any]]) -> Enqueued:
    task = tasks.get(message.task)
    if task is not None:
        args, kwargs = task.signature.decode(message.args, message.kwargs)
    else:
        raw = bytes(message.kwargs)
        args, kwargs = tuple(_unpack_args(bytes(message.args))), {} if raw == b"\xc0" else _unpack_kwargs(raw)
    return Enqueued(message.task, args, kwargs, queue, lane_tags(lane), message.id)
