"""The part of an app that looks at dead letters, lets them run again, changes them and frees them."""

from __future__ import annotations

import getpass
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec

from streamwork.broker.dead import PURGE, RETRY, DeadQuery, DeadReading, Deed, doing, editing, told
from streamwork.broker.history import check_queue
from streamwork.broker.lookup import UNDECODABLE
from streamwork.broker.resend import ainsist, insist
from streamwork.broker.steps import Steps
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ConfigError, DeadLetterRefused
from streamwork.guards import refuse_on_loop
from streamwork.history import Remembering, checked_limit, checked_task_id, glob_of
from streamwork.model.arguments import changed
from streamwork.model.dead import REASONS, DeadDone, DeadRecord
from streamwork.model.instant import past_instant_ms
from streamwork.model.span import Seconds
from streamwork.model.where import Where
from streamwork.options import check_options, tags_of
from streamwork.store.keys import checked_name
from streamwork.task import Task
from streamwork.wire.codec import unpacker
from streamwork.wire.signature import pack_call

H = TypeVar("H", bound=Callable[[DeadRecord], object])
_anything, _NIL = unpacker(Any), b"\xc0"


class DeadOptions(TypedDict, total=False):
    """Which dead letters of a queue; all of it has to fit.

    Attributes:
        id: Of one task message, or of several.
        since, until: When it died: a datetime, or seconds or a timedelta before now; None = since ever, until now.
        task: A task, or a glob of names (``shop.mail.*``); one without a dot fits the last part of a name, too.
        reason: Why it is dead: one of ``failed, rejected, quarantined, lost, undecodable, unknown_task, settle_error``,
            or several.
        tags: What a worker has to offer, at least.
        where: An expression over arguments, such as ``order_id == 7 and country != 'CH'``; see `model.where`.
        limit: So many at most, the oldest first; None = all.
    """

    id: str | Iterable[str] | None
    since: datetime | Seconds | None
    until: datetime | Seconds | None
    task: str | Task[..., Any] | None
    reason: str | Iterable[str]
    tags: Iterable[str]
    where: str | None
    limit: int | None


DEAD_OPTIONS = frozenset(DeadOptions.__annotations__)


class Burying(Remembering):
    """Dead letters are read from Redis page by page, and each is acted on by itself.

    Attributes:
        dead_hooks: What `on_dead` has taken.
    """

    dead_hooks: list[Callable[[DeadRecord], object]]

    def on_dead(self, function: H) -> H:
        """Let a function be told of dead letters: ``@app.on_dead``.

        The worker that wrote the letter calls it with a `DeadRecord`, in a thread of its own, an async one on a loop of
        that thread. It is told once at most: not where the worker dies first, nor where it cannot keep up. What it
        raises is logged and harms nothing.

        Raises:
            ConfigError: It is no function.
        """
        if not callable(function):
            raise ConfigError(f"on_dead: {function!r} is no function")
        self.dead_hooks.append(function)
        return function

    def dead(self, queue: str = "default", **asked: Unpack[DeadOptions]) -> Iterator[DeadRecord]:
        """Return the dead letters of a queue, oldest first: all, or what fits `DeadOptions`.

        Raises:
            ConfigError, WhereError: A value is wrong; nothing was read.
            QueueNotFound: Nothing was ever sent to or read from this queue.
            StoreError: Redis is away or refuses.
            UseAsync: Called on an event loop's thread.
        """
        refuse_on_loop("dead", "adead")
        reading = self._dead_reading(queue, asked)
        insist(lambda: self.connection.ask(check_queue(reading.keys, self.queues)), self._patience_s)
        return self._dead_pages(reading)

    def _dead_pages(self, reading: DeadReading) -> Iterator[DeadRecord]:
        while not reading.is_over:
            yield from insist(lambda: self.connection.ask(reading.page()), self._patience_s)

    async def adead(self, queue: str = "default", **asked: Unpack[DeadOptions]) -> AsyncIterator[DeadRecord]:
        """Return the same for ``async for``; see `dead`. What is wrong is raised at the first step."""
        reading, ask = self._dead_reading(queue, asked), self.connection.aask
        await ainsist(lambda: ask(check_queue(reading.keys, self.queues)), self._patience_s)
        while not reading.is_over:
            for record in await ainsist(lambda: ask(reading.page()), self._patience_s):
                yield record

    def retry_dead(self, queue: str = "default", *, dry_run: bool = False, **asked: Unpack[DeadOptions]) -> DeadDone:
        """Let dead letters run again, all or what fits `DeadOptions`, under their ids and at once.

        Each begins a new round: its attempts are counted anew, its result is cleared, and it asks for its limits again.
        Its history stays. What dies meanwhile is left alone. One that has expired, that cannot be read, or the
        ``unique=`` name of which another message has, stays dead and is told in `DeadDone.refused`.

        Args:
            queue: Which queue's.
            dry_run: Only say what would happen.
            asked: Which of them.

        Raises:
            ConfigError, WhereError, QueueNotFound, StoreError, UseAsync: As `dead`. Behind a StoreError some may have
                been retried; calling it again goes on with the rest.
        """
        refuse_on_loop("retry_dead", "aretry_dead")
        return _sum(self.each_dead(queue, RETRY, asked, dry_run=dry_run))

    def purge_dead(self, queue: str = "default", *, dry_run: bool = False, **asked: Unpack[DeadOptions]) -> DeadDone:
        """Free dead letters for good, all or what fits `DeadOptions`, and what their messages still have in Redis.

        Their history stays, with a record of who purged them. Raises what `retry_dead` raises.
        """
        refuse_on_loop("purge_dead", "apurge_dead")
        return _sum(self.each_dead(queue, PURGE, asked, dry_run=dry_run))

    async def aretry_dead(
        self, queue: str = "default", *, dry_run: bool = False, **asked: Unpack[DeadOptions]
    ) -> DeadDone:
        """Do what `retry_dead` does, from async code."""
        return await self._ado(queue, RETRY, asked, dry_run=dry_run)

    async def apurge_dead(
        self, queue: str = "default", *, dry_run: bool = False, **asked: Unpack[DeadOptions]
    ) -> DeadDone:
        """Do what `purge_dead` does, from async code."""
        return await self._ado(queue, PURGE, asked, dry_run=dry_run)

    def each_dead(
        self, queue: str, deed: Deed, asked: DeadOptions, *, dry_run: bool
    ) -> Iterator[tuple[DeadRecord, str]]:
        """Do something to dead letters while one goes through them; yields each, and why not; empty = done."""
        reading = self._dead_reading(queue, asked)
        self.connection.ask(check_queue(reading.keys, self.queues))
        while not reading.is_over:
            # Not insisted on: an answer that was lost would be told as "it is no dead letter any more".
            yield from self.connection.ask(doing(reading, deed, _who(), dry_run=dry_run))

    async def _ado(self, queue: str, deed: Deed, asked: DeadOptions, *, dry_run: bool) -> DeadDone:
        reading, found = self._dead_reading(queue, asked), list[tuple[str, str]]()
        await self.connection.aask(check_queue(reading.keys, self.queues))
        done = 0
        while not reading.is_over:
            answers = await self.connection.aask(doing(reading, deed, _who(), dry_run=dry_run))
            done += sum(not why for _, why in answers)
            found += [(record.id, why) for record, why in answers if why]
        return DeadDone(done, dict(found))

    def edit_dead(self, task_id: str, changes: Mapping[str, Any], queue: str = "default") -> DeadRecord:
        """Give a dead letter other arguments; returns it as it is then. It stays dead until it is retried.

        Where this app declares the task, all of the arguments are checked against its annotations. Its limits stay
        those that it was sent with. What changed, and who did it, is noted in the journal.

        Args:
            task_id: Its id.
            changes: Arguments by name, as the task names them, or ``arg0``, ``arg1``, … for positional ones of a task
                that is not declared here.
            queue: Its queue.

        Raises:
            ArgumentError: The task takes no such arguments; nothing was changed.
            DeadLetterRefused: There is no such dead letter, it cannot be read, or it was changed meanwhile.
            ConfigError, QueueNotFound, StoreError, UseAsync: As `dead`.
        """
        refuse_on_loop("edit_dead", "aedit_dead")
        return self.connection.ask(self._editing(task_id, changes, queue))

    async def aedit_dead(self, task_id: str, changes: Mapping[str, Any], queue: str = "default") -> DeadRecord:
        """Do what `edit_dead` does, from async code."""
        return await self.connection.aask(self._editing(task_id, changes, queue))

    def _editing(self, task_id: str, changes: Mapping[str, Any], queue: str) -> Steps[DeadRecord]:
        if not isinstance(changes, Mapping) or not changes:
            raise ConfigError(f"changes={changes!r}: give arguments by name, such as {{'to': 'a@b.c'}}")
        reading = self._dead_reading(queue, {"id": task_id})
        yield from check_queue(reading.keys, self.queues)
        record = _only((yield from reading.page()), task_id, queue)
        packed = self._edited(record, changes)
        detail = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        (answer,) = yield [editing(reading.keys, record, packed, _who(), detail)]
        if answer:
            raise DeadLetterRefused(f"dead letter {task_id} is not changed: {told(answer)}")
        return _only((yield from self._dead_reading(queue, {"id": task_id}).page()), task_id, queue)

    def with_changes(self, record: DeadRecord, changes: Mapping[str, Any]) -> DeadRecord:
        """Return a dead letter as `edit_dead` would leave it; raises what that raises, and writes nothing."""
        args, kwargs = self._edited(record, changes)
        return msgspec.structs.replace(record, args=_anything(args), kwargs=_anything(kwargs or _NIL) or {})

    def _edited(self, record: DeadRecord, changes: Mapping[str, Any]) -> tuple[bytes, bytes | None]:
        if record.args is None:
            raise DeadLetterRefused(f"dead letter {record.id} is not changed: its arguments cannot be read")
        task = self.tasks.get(record.task)
        args, kwargs = changed(record.args, record.kwargs, self.argument_names(record.task), changes)
        return pack_call(args, kwargs) if task is None else task.signature.encode(tuple(args), kwargs)

    def _dead_reading(self, queue: str, asked: DeadOptions) -> DeadReading:
        check_options(asked, DEAD_OPTIONS, "dead letters")
        now_ms = SYSTEM_CLOCK.now_ms()
        since_ms = past_instant_ms(asked.get("since"), "since", now_ms)
        until_ms = past_instant_ms(asked.get("until"), "until", now_ms)
        if since_ms is not None and until_ms is not None and since_ms > until_ms:
            raise ConfigError("since is behind until: nothing can be between them")
        glob, where = glob_of(asked.get("task")), asked.get("where")
        expression = None if where is None else Where(where)
        if expression is not None:
            self._check_names(expression, glob)
        query = DeadQuery(
            since_ms, until_ms, glob or "", _reasons(asked.get("reason", ())), tags_of(asked.get("tags", ())),
            _ids(asked.get("id")), expression, checked_limit(asked.get("limit")),
        )  # fmt: skip
        return DeadReading(self.connection.keys(checked_name("queue", queue)), query, self.argument_names)


def _sum(found: Iterable[tuple[DeadRecord, str]]) -> DeadDone:
    done, refused = 0, dict[str, str]()
    for record, why in found:
        done += not why
        if why:
            refused[record.id] = why
    return DeadDone(done, refused)


def _only(found: list[DeadRecord], task_id: str, queue: str) -> DeadRecord:
    if not found:
        raise DeadLetterRefused(f"there is no dead letter {task_id} in queue {queue!r}")
    return found[0]


def _reasons(reason: str | Iterable[str]) -> frozenset[str]:
    words = [reason] if isinstance(reason, str) else list(reason)
    for word in words:
        if word not in REASONS:
            raise ConfigError(f"reason {word!r}: task messages are dead because {', '.join(REASONS)}")
    return frozenset(words)


def _ids(given: str | Iterable[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else list(given)
    if not texts:
        raise ConfigError("id=[]: give one at least, or None for all")
    return tuple(dict.fromkeys(text if str(text).startswith(UNDECODABLE) else checked_task_id(text) for text in texts))


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
