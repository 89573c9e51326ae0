"""Send task messages from threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from streamwork.broker.outgoing import Outgoing, Sender
from streamwork.broker.resend import REFUSALS, Patience, Refusal, is_gap, refused
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import ClientConfig
from streamwork.errors import QueueFull, StoreError, StoreUnavailable
from streamwork.store.commands import Command
from streamwork.store.keys import QueueKeys
from streamwork.store.sync_driver import SyncDriver

T = TypeVar("T")


class Line:
    """One connection with one sender mark: used by one thread at a time, one chunk in flight (rule 1)."""

    def __init__(self, driver: SyncDriver, config: ClientConfig) -> None:
        self._driver = driver
        self._config = config
        self._limits = config.backlogs
        # Gone while a chunk is under way: whatever ends that, a number of unknown fate is not used for another chunk.
        self._sender: Sender | None = None
        self._trying: tuple[Sender, Command[list[str]], StoreUnavailable | None, Patience] | None = None

    def send(self, keys: QueueKeys, chunk: Sequence[Outgoing], wait_s: float | None = None) -> list[str]:
        """Send one chunk and return its entry ids, trying again while Redis is away.

        Where a queue has less room than the chunk needs, what fits is sent, from its begin, and the rest is refused.

        Args:
            keys: The queue.
            chunk: The messages.
            wait_s: How long to try while Redis is away, silent or full, or the queue is; below a second one try has a
                second all the same. None = as the settings say, and not while something is full.

        Raises:
            StoreUnavailable: Nothing was sent.
            EnqueueUnknown: It may have arrived.
            QueueFull: Nothing was sent, or as many as it says.
            StoreFull, TooManyLanes, StoreRejected: Refused whole.
        """
        self.begin(keys, chunk, wait_s)
        return self._finish(keys, chunk, wait_s)

    def begin(self, keys: QueueKeys, chunk: Sequence[Outgoing], wait_s: float | None = None) -> None:
        """Send a chunk without waiting; `finish` reads its answer."""
        sender, self._sender = self._sender or Sender(self._config.max_lanes, self._limits), None
        command = sender.command(keys, chunk, SYSTEM_CLOCK.now_ms())
        now_s = time.monotonic()
        patience = Patience(self._config, now_s, wait_s)
        try:
            with self._driver.until(patience.answer_by_s(now_s)):
                self._driver.begin(command)
        except StoreUnavailable as error:
            self._trying = sender, command, error, patience
        else:
            self._trying = sender, command, None, patience

    def finish(self, keys: QueueKeys, chunk: Sequence[Outgoing], wait_s: float | None = None) -> list[str]:
        """Return the entry ids of the chunk begun last; raises what `send` raises."""
        if self._trying is not None and wait_s is not None:
            # What the caller did since it was begun is none of the wait.
            self._trying = *self._trying[:3], Patience(self._config, time.monotonic(), wait_s)
        return self._finish(keys, chunk, wait_s)

    def _finish(self, keys: QueueKeys, chunk: Sequence[Outgoing], wait_s: float | None) -> list[str]:
        if self._trying is None:
            raise StoreUnavailable("nothing was begun")
        (sender, command, failed, patience), self._trying = self._trying, None
        try:
            if failed is not None:
                raise failed
            with self._driver.until(patience.answer_by_s(time.monotonic())):
                entries = self._driver.finish(command)
        except REFUSALS as error:
            sender, entries = self._persist(sender, keys, chunk, error, patience)
        except StoreError as error:
            if not is_gap(error):
                raise refused(error) from error
            return self.send(keys, chunk, wait_s)
        sender.sent(keys)
        self._sender = sender
        return entries

    def _persist(
        self, sender: Sender, keys: QueueKeys, chunk: Sequence[Outgoing], error: Refusal | None, patience: Patience
    ) -> tuple[Sender, list[str]]:
        done: list[str] = []
        part = chunk
        while True:
            if isinstance(error, QueueFull) and 0 < error.room < len(part) and not patience.in_doubt:
                part = part[: error.room]
            elif error is not None:
                time.sleep(_pause_s(patience, error, part, len(done)))
            try:
                with self._driver.until(patience.answer_by_s(time.monotonic())):
                    entries = self._driver.run(sender.command(keys, part, SYSTEM_CLOCK.now_ms()))
            except REFUSALS as again:
                error = again
            except StoreError as refusal:
                if not is_gap(refusal):
                    raise refused(refusal) from refusal
                sender = Sender(self._config.max_lanes, self._limits)
            else:
                done += entries
                if len(done) == len(chunk):
                    return sender, done
                sender.sent(keys)
                part, error, patience.in_doubt = chunk[len(done) :], None, False

    def close(self) -> None:
        """Drop the connection."""
        self._driver.close()


def _pause_s(patience: Patience, error: Refusal, part: Sequence[Outgoing], sent: int) -> float:
    try:
        return patience.pause_s(error, time.monotonic(), [message.task_id for message in part])
    except QueueFull as full:
        raise full.after(sent) from None


class SyncSender:
    """Send from any thread; each thread has its own line, and so has each bulk in progress.

    Args:
        driver: For single sends; makes a connection per thread.
        another_driver: Makes a driver for a bulk, whose connection is busy while the caller's generator runs.
        config: The client's settings.
    """

    def __init__(self, driver: SyncDriver, another_driver: Callable[[], SyncDriver], config: ClientConfig) -> None:
        self._driver = driver
        self._another_driver = another_driver
        self._config = config
        self._local = threading.local()
        self._spare: list[Line] = []
        self._pid = os.getpid()

    def line(self) -> Line:
        """Return this thread's line, fresh after a fork (rule 2)."""
        local: Any = self._local
        if getattr(local, "pid", None) != os.getpid():
            local.line = Line(self._driver, self._config)
            local.pid = os.getpid()
        return local.line  # type: ignore[no-any-return]

    def send_chunks(
        self, chunks: Iterator[tuple[QueueKeys, list[Outgoing], T]], wait_s: float | None = None
    ) -> Iterator[tuple[T, list[str]]]:
        """Send chunks one after another; yields what came with each and its entry ids, as it is answered.

        The next chunk is made while Redis works on the one before, so both sides are busy. `wait_s` is each chunk's.
        """
        if self._pid != os.getpid():
            self._spare, self._pid = [], os.getpid()
        try:
            line = self._spare.pop()
        except IndexError:
            line = Line(self._another_driver(), self._config)
        pending: tuple[QueueKeys, list[Outgoing], T] | None = None
        try:
            for chunk in chunks:
                if pending is not None:
                    (keys, messages, extra), pending = pending, None
                    yield extra, line.finish(keys, messages, wait_s)
                line.begin(chunk[0], chunk[1], wait_s)
                pending = chunk
            if pending is not None:
                (keys, messages, extra), pending = pending, None
                yield extra, line.finish(keys, messages, wait_s)
        finally:
            if pending is not None:
                # The caller's generator raised with a chunk in flight: wait for its answer, so that what was sent is
                # known to be sent and does not meet the next chunk.
                line.finish(pending[0], pending[1], wait_s)
            self._spare.append(line)

    def close(self) -> None:
        """Drop the connections of bulks."""
        while self._spare:
            self._spare.pop().close()
