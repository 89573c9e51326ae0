"""The part of an app that lets past deliveries run again: anew on a queue, here, or to compare."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

from streamwork.errors import ReplayRefused
from streamwork.guards import refuse_on_loop
from streamwork.history import HistoryOptions
from streamwork.model.history import HistoryGap
from streamwork.model.replay import Compared, Comparison, Ran, ReplayCall, Replayed, slower_of
from streamwork.model.span import Seconds
from streamwork.replay.capture import captured
from streamwork.replay.choosing import Chosen, choose
from streamwork.replay.comparing import Comparing
from streamwork.replay.here import find_past, run_alone
from streamwork.replay.host import Host
from streamwork.replay.log import Log, create, digest, unfinished
from streamwork.replay.pace import Pace, by_creation, pace_of, rate_of
from streamwork.replay.past import CALLS, Past, delivery_of, pasts
from streamwork.replay.sending import Sending, settle_doubt
from streamwork.replay.window import Options, Window, checked_concurrency, window_of
from streamwork.store.keys import checked_name

CONCURRENCY = 8


class Replaying(Host):
    """History is the source of all three; what is compared or run here sends nothing anywhere."""

    def replay(
        self, queue: str = "default", *, into: str, changes: Mapping[str, Any] | None = None,
        rate: float | None = None, pace: str | float | None = None, dry_run: bool = False, resume: bool = False,
        anew: bool = False, most: int | None = None, begun: Callable[[int], None] | None = None,
        told: Callable[[ReplayCall], None] | None = None, **asked: Unpack[HistoryOptions],
    ) -> Replayed:  # fmt: skip
        """Enqueue past task messages anew: all of a queue, or what fits `HistoryOptions`; each once.

        The new ones have ids of their own, `replay_of` with the past one's, the lane, the arguments and the options of
        the past; what expired, does not any more. Where this app declares the task, they ask for its limits again.
        What was sent is noted in a file below the setting `folder`, so that an interrupted replay can go on.

        Args:
            queue: Whose history.
            into: Where to.
            changes: Other values for some arguments, by name, or ``arg0``, ``arg1``, … for tasks not declared here.
            rate: Messages a second at most; None = as many as it goes.
            pace: ``1x`` = at the intervals at which they were made, ``10x`` = ten times faster; None = at once.
            dry_run: Send nothing, only tell.
            resume: Go on with the interrupted replay of the same queues, filters and changes.
            anew: Begin another one although one was interrupted.
            most: Refuse to send more than so many; None = any number.
            begun: Called with the number of messages to send, before the first one is.
            told: Called with each message: sent (`ReplayCall.new_id`) or not (`why`).
            asked: Which of them.

        Raises:
            ArgumentError: A changed argument does not fit the task's signature; nothing was sent.
            ReplayRefused: There are more than `most`, or one was interrupted, or none was; nothing was sent.
            ConfigError, WhereError, QueueNotFound, HistoryTrimmed, StoreError, UseAsync: As `history`, and as
                `Task.enqueue` while it sends: `resume=True` goes on from there.
        """
        refuse_on_loop("replay", "areplay")
        options = Options(
            checked_name("queue", into), dict(changes or {}), rate_of(rate), pace_of(pace), dry_run, resume, anew, most
        )
        return self._replay(queue, options, window_of(asked), begun or _ignore, told or _ignore)

    async def areplay(
        self, queue: str = "default", *, into: str, told: Callable[[ReplayCall], None] | None = None, **asked: Any
    ) -> Replayed:
        """Do what `replay` does, from async code; `told` is called in another thread. Cancelled, it can be resumed."""
        is_stopped = threading.Event()

        def tell(call: ReplayCall) -> None:
            if is_stopped.is_set():
                raise ReplayRefused("cancelled")
            (told or _ignore)(call)

        running = asyncio.ensure_future(asyncio.to_thread(partial(self.replay, queue, into=into, told=tell, **asked)))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            is_stopped.set()
            await asyncio.wait({running})
            running.exception()
            raise

    def _replay(
        self, queue: str, options: Options, window: Window, begun: Callable[[int], None],
        told: Callable[[ReplayCall], None],
    ) -> Replayed:  # fmt: skip
        log = self._log(queue, options, window)
        try:
            if log is not None:
                head = log.head
                window = window._replace(since_ms=head.since_ms, until_ms=head.until_ms, limit=head.limit)
                if not options.dry_run:
                    settle_doubt(self, options.into, log)
            count, refused = self._count(queue, options, window, log, told)
            if options.dry_run:
                before = len(log.sent) if log is not None else 0
                return Replayed(replay="", sent=count, sent_before=before, refused=refused)
            if options.most is not None and count > options.most:
                raise ReplayRefused(f"{count:,} task messages fit, and {options.most:,} are the most; nothing was sent")
            if log is None:
                what = self._what(queue, options, window)
                log = create(self._replays, what, window.since_ms, window.until_ms, window.limit)
            begun(count)
            sender = Sending(self, options.into, log, Pace(options.rate, options.pace), told)
            return sender.send(self._chosen(queue, options, window))
        finally:
            if log is not None:
                log.close()

    def _count(
        self, queue: str, options: Options, window: Window, log: Log | None, told: Callable[[ReplayCall], None]
    ) -> tuple[int, dict[str, str]]:
        """Go through all of it before anything is sent, so that a wrong argument sends nothing."""
        count, refused = 0, dict[str, str]()
        for one in self._chosen(queue, options, window):
            call = one.call
            if log is not None and call.id in log.sent:
                continue
            count += not call.why
            if call.why:
                refused[call.id] = call.why
            if options.dry_run:
                told(call)
        return count, refused

    def _chosen(self, queue: str, options: Options, window: Window) -> Iterator[Chosen]:
        found = choose(self, queue, options.into, options.changes, window.asked)
        return found if options.pace is None else by_creation(found)

    @property
    def _replays(self) -> Path:
        return Path(self.config.folder)

    def _what(self, queue: str, options: Options, window: Window) -> str:
        return digest(self.name, queue, options.into, options.changes, window.what)

    def _log(self, queue: str, options: Options, window: Window) -> Log | None:
        """Return the log of an interrupted replay that goes on now; None = another one begins."""
        if options.anew or (options.dry_run and not options.resume):
            return None
        log = unfinished(self._replays, self._what(queue, options, window))
        if log is None and options.resume:
            raise ReplayRefused(
                f"there is no interrupted replay of {queue!r} into {options.into!r} with these filters and changes "
                f"in {self._replays}"
            )
        if log is not None and not options.resume:
            log.close()
            raise ReplayRefused(
                f"replay {log.head.replay}, which is the same, was interrupted after {len(log.sent):,} task messages: "
                "go on with it (--resume, resume=True), or begin another one (--anew, anew=True)"
            )
        return log

    def replay_here(
        self, task_id: str, queue: str = "default", *, attempt: int | None = None, debug: bool = False,
        imported: bool = False,
    ) -> Ran:  # fmt: skip
        """Run one past delivery in this process: with its arguments, its attempt and its context.

        What it sends is captured, nothing is written to Redis and no time limit ends it. What its body does elsewhere,
        it does; `Context.replay` tells it that this is no first time.

        Args:
            task_id: Of the past message.
            queue: Its queue.
            attempt: Which of its attempts; None = the last one that ran.
            debug: Begin a debugger at the first line of its body; leaving that with ``q`` raises `bdb.BdbQuit`.
            imported: Look in what was imported from files.

        Raises:
            TaskNotFound: This app does not declare its task.
            HistoryTrimmed: It is not kept any more, or its arguments are not.
            ReplayRefused: None of its attempts ran, or it cannot be read.
            ConfigError, QueueNotFound, StoreError, UseAsync: As `history`.
        """
        refuse_on_loop("replay_here", "areplay_here")
        record = find_past(self, queue, task_id, attempt, imported=imported)
        self.find(record.task)
        delivery = delivery_of(self, record, "here")
        with captured(self) as capture:
            return run_alone(self, delivery, capture, debug=debug)

    async def areplay_here(
        self, task_id: str, queue: str = "default", *, attempt: int | None = None, imported: bool = False
    ) -> Ran:
        """Do what `replay_here` does, from async code, in a thread and on a loop of its own."""
        return await asyncio.to_thread(partial(self.replay_here, task_id, queue, attempt=attempt, imported=imported))

    def compare(
        self, queue: str = "default", *, concurrency: int = CONCURRENCY, slower: str | Seconds | None = None,
        most: int | None = None, told: Callable[[Compared], None] | None = None, **asked: Unpack[HistoryOptions],
    ) -> Comparison:  # fmt: skip
        """Run current code over past deliveries and compare what it does with what is recorded.

        How calls ended is compared: as ``succeeded``, ``skipped`` and ``dead``, unless `state` says otherwise. Bodies
        run where their tasks say, on the loop, in threads or in processes; what killed its process then runs in one of
        its own. What they send is captured, as is whatever else this app sends from this process until the end. What
        they do elsewhere, they do; `Context.replay` tells them that this is no first time.

        Results are compared while they are kept (`keep.result_s`), later only their size.

        Args:
            queue: Whose history.
            concurrency: Bodies at a time; 1 where their times matter.
            slower: From when on a body counts as slower: ``2x``, ``200ms``, seconds or a timedelta; None = never.
            most: Refuse to run more than so many; None = any number.
            told: Called with each comparison as it comes.
            asked: Which deliveries.

        Raises:
            ReplayRefused: There are more than `most`; nothing ran.
            ConfigError, WhereError, QueueNotFound, HistoryTrimmed, StoreError, UseAsync: As `history`.
        """
        refuse_on_loop("compare", "acompare")
        return asyncio.run(self.acompare(queue, concurrency=concurrency, slower=slower, most=most, told=told, **asked))

    async def acompare(
        self, queue: str = "default", *, concurrency: int = CONCURRENCY, slower: str | Seconds | None = None,
        most: int | None = None, told: Callable[[Compared], None] | None = None, **asked: Unpack[HistoryOptions],
    ) -> Comparison:  # fmt: skip
        """Do what `compare` does, from async code; async bodies run on this loop."""
        bound, limit = slower_of(slower), checked_concurrency(concurrency)
        window = window_of(asked)
        if "state" not in window.others and "id" not in window.others:
            window = window._replace(others={**window.others, "state": CALLS})
        # Of its own connection, while the app's is taken away from the bodies.
        reader = copy.copy(self)
        pages = await asyncio.to_thread(self._pages_of, reader, queue, window, most)
        with captured(self) as capture:
            return await Comparing(self, capture, limit, bound).run(queue, pages, told or _ignore)

    @staticmethod
    def _pages_of(reader: Host, queue: str, window: Window, most: int | None) -> Iterator[list[Past | HistoryGap]]:
        if most is not None and sum(1 for _ in islice(reader.history(queue, **window.asked), most + 1)) > most:
            raise ReplayRefused(f"more than {most:,} deliveries fit; none of them ran")
        return pasts(reader, queue, window.asked)


def _ignore(_: object) -> None:
    """Tell nobody."""
