"""The part of an app that tells what happened: attempt by attempt, filtered, from any time on."""

from __future__ import annotations

import asyncio
import difflib
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from streamwork.broker.history import BELL_MS, Query, Reading, check_queue, is_named
from streamwork.broker.resend import ainsist, backoff_s, insist
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import ConfigError, StoreUnavailable, WhereError
from streamwork.guards import refuse_on_loop
from streamwork.ids import task_id_at_ms
from streamwork.model.history import DONE_TO_DEAD, ENDED_AS, FAILED, FAILURES, HistoryGap, HistoryRecord
from streamwork.model.instant import past_instant_ms
from streamwork.model.span import Seconds
from streamwork.model.where import Where
from streamwork.options import check_options, tags_of
from streamwork.store.keys import checked_name
from streamwork.task import Task

if TYPE_CHECKING:
    from streamwork.connection import Connection

_CURSOR = re.compile(r"\d{1,20}-\d{1,20}")
# A connection is given up when the answer to a wait of `BELL_MS` is this late.
_LATE_S = 5.0
_POSITIONAL_NAMES = re.compile(r"arg\d+")


class HistoryOptions(TypedDict, total=False):
    """What of a queue's history is asked for; all of it has to fit.

    Attributes:
        since, until: When the attempt ended: a datetime, or seconds or a timedelta before now; None = since ever, until
            now.
        task: A task, or a glob of names (``shop.mail.*``); one without a dot fits the last part of a name, too.
        state: How it ended: one of ``succeeded, skipped, cancelled, expired, dead, retried, crashed, deferred``, or
            several; ``failed`` stands for dead, retried and crashed. Or what was done to a dead letter: ``requeued,
            edited, purged``.
        tags: What a worker had to offer, at least.
        id: Of one task message.
        where: An expression over arguments, such as ``order_id == 7 and country != 'CH'``; see `model.where`.
            Positional arguments have the names of this app's declarations, and ``arg0``, ``arg1``, … anyway.
        limit: Records at most; None = all.
        after: Goes on behind this `HistoryRecord.cursor`.
        reverse: Newest first.
        follow: Goes on with what comes, also over a restart of Redis, without an end; begins now where neither `since`
            nor `after` is given.
        imported: Of what `streamwork history import` has taken from files, instead of what happened here.
    """

    since: datetime | Seconds | None
    until: datetime | Seconds | None
    task: str | Task[..., Any] | None
    state: str | Iterable[str]
    tags: Iterable[str]
    id: str | None
    where: str | None
    limit: int | None
    after: str | None
    reverse: bool
    follow: bool
    imported: bool


HISTORY_OPTIONS = frozenset(HistoryOptions.__annotations__)


class Remembering(ABC):
    """History is read from Redis page by page, so that memory stays flat however long it is."""

    name: str
    connection: Connection
    tasks: dict[str, Task[..., Any]]

    @property
    @abstractmethod
    def queues(self) -> list[str]:
        """The queues that this app uses."""

    def history(self, queue: str = "default", **asked: Unpack[HistoryOptions]) -> Iterator[HistoryRecord | HistoryGap]:
        """Return what came of each attempt, in the order in which they ended: all, or what fits `HistoryOptions`.

        Where something that was asked for is past its retention, a `HistoryGap` stands in its place.

        Raises:
            ConfigError, WhereError: A value is wrong; nothing was read.
            QueueNotFound: Nothing was ever sent to or read from this queue.
            HistoryTrimmed: Nothing is kept of `id`; told where the iteration ends.
            StoreError: Redis is away or refuses.
            UseAsync: Called on an event loop's thread.
        """
        refuse_on_loop("history", "ahistory")
        reading = self._reading(queue, asked)
        insist(lambda: self.connection.ask(check_queue(reading.keys, self.queues)), self._patience_s)
        return self._pages(reading)

    def ahistory(
        self, queue: str = "default", **asked: Unpack[HistoryOptions]
    ) -> AsyncIterator[HistoryRecord | HistoryGap]:
        """Return the same for ``async for``; see `history`. What Redis says is raised at the first step."""
        return self._apages(self._reading(queue, asked))

    async def _apages(self, reading: Reading) -> AsyncIterator[HistoryRecord | HistoryGap]:
        ask, failures, driver = self.connection.aask, 0, None
        await ainsist(lambda: ask(check_queue(reading.keys, self.queues)), self._patience_s)
        try:
            while not reading.is_over:
                try:
                    for found in await ainsist(lambda: ask(reading.page()), self._patience_s):
                        yield found
                    if reading.is_at_end and not reading.is_over:
                        # A wait of its own would hold up whatever else the loop asks for.
                        driver = driver or self.connection.another_async_driver(BELL_MS / 1000 + _LATE_S)
                        await driver.run(reading.bell())
                    failures = 0
                except StoreUnavailable:
                    if not reading.is_followed:
                        raise
                    failures += 1
                    await asyncio.sleep(backoff_s(failures))
        finally:
            if driver is not None:
                await driver.close()

    def _pages(self, reading: Reading) -> Iterator[HistoryRecord | HistoryGap]:
        failures = 0
        while not reading.is_over:
            try:
                yield from insist(lambda: self.connection.ask(reading.page()), self._patience_s)
                if reading.is_at_end and not reading.is_over:
                    self.connection.driver.run(reading.bell(), BELL_MS / 1000 + _LATE_S)
                failures = 0
            except StoreUnavailable:
                if not reading.is_followed:
                    raise
                failures += 1
                time.sleep(backoff_s(failures))

    @property
    def _patience_s(self) -> float:
        return self.connection.config.client.send_timeout_s

    def argument_names(self, task: str) -> Sequence[str]:
        """Return the names of a task's positional parameters; none where it is not declared here."""
        known = self.tasks.get(task)
        return () if known is None else _positional(known)

    def _reading(self, queue: str, asked: HistoryOptions) -> Reading:
        check_options(asked, HISTORY_OPTIONS, "history")
        keys = self.connection.keys(checked_name("queue", queue))
        return Reading(keys, self._query(asked), self.argument_names)

    def _query(self, asked: HistoryOptions) -> Query:
        now_ms = SYSTEM_CLOCK.now_ms()
        since_ms = past_instant_ms(asked.get("since"), "since", now_ms)
        until_ms = past_instant_ms(asked.get("until"), "until", now_ms)
        if since_ms is not None and until_ms is not None and since_ms > until_ms:
            raise ConfigError("since is behind until: nothing can be between them")
        follow, reverse, imported = (asked.get(name, False) for name in ("follow", "reverse", "imported"))
        if follow and (reverse or imported or until_ms is not None):
            raise ConfigError("follow goes on with what comes: leave reverse, until and imported out")
        where, after = asked.get("where"), asked.get("after")
        glob, limit = glob_of(asked.get("task")), checked_limit(asked.get("limit"))
        if after is not None and (not isinstance(after, str) or not _CURSOR.fullmatch(after)):
            raise ConfigError(f"after={after!r}: give the cursor of a record")
        expression = None if where is None else Where(where)
        if expression is not None:
            self._check_names(expression, glob)
        return Query(
            since_ms, until_ms, glob or "", _states(asked.get("state", ())), tags_of(asked.get("tags", ())),
            checked_task_id(asked.get("id")), expression, limit, after or "", bool(reverse), bool(follow),
            bool(imported),
        )  # fmt: skip

    def _check_names(self, where: Where, glob: str | None) -> None:
        """Refuse a name that none of the tasks in question has, where all of those are declared here."""
        tasks = [task for name, task in self.tasks.items() if glob is not None and is_named(name, glob)]
        parameters = [each for task in tasks for each in task.signature.shape.parameters.values()]
        names = {each.name for each in parameters}
        if not tasks or any(each.kind is each.VAR_KEYWORD for each in parameters):
            return
        for name in sorted(where.names - names):
            if not _POSITIONAL_NAMES.fullmatch(name):
                close = difflib.get_close_matches(name, names, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(names)) or 'none'}"
                raise WhereError(f"where {where.text!r}: task {glob} has no argument {name!r}: {hint}")


def glob_of(task: object) -> str | None:
    """Return the names that ``task=`` stands for; raises ConfigError for what is neither a task nor a text."""
    glob = task.name if isinstance(task, Task) else task
    if not isinstance(glob, str | None):
        raise ConfigError(f"task={task!r}: give a task, or a glob of names")
    return glob


def checked_limit(limit: object) -> int | None:
    """Return ``limit=`` as it is; raises ConfigError for what is no number of records."""
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigError(f"limit={limit!r}: give a whole number from 1 on, or None for all")
    return limit


def _positional(task: Task[..., Any]) -> list[str]:
    parameters = task.signature.shape.parameters.values()
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def _states(state: str | Iterable[str]) -> frozenset[str]:
    words = [state] if isinstance(state, str) else list(state)
    found: set[str] = set()
    for word in words:
        if word not in ENDED_AS and word not in DONE_TO_DEAD and word != FAILED:
            raise ConfigError(
                f"state {word!r}: history tells how attempts ended, as {', '.join(ENDED_AS)}, "
                f"or {FAILED} for {', '.join(sorted(FAILURES))}; and what was done to dead letters, as "
                f"{', '.join(DONE_TO_DEAD)}"
            )
        found |= FAILURES if word == FAILED else {word}
    return frozenset(found)


def checked_task_id(text: object) -> str:
    """Return a task id as it is stored, empty for None; raises ConfigError for what is none."""
    if text is None:
        return ""
    digits = text.replace("-", "").lower() if isinstance(text, str) else ""
    if task_id_at_ms(digits) is None:
        raise ConfigError(f"id={text!r} is not a task id: 32 hex digits, as in handle.id")
    return digits
