"""Wait for results without polling: one listener thread per process serves any number of waiters.

The result key is the truth; the reply stream only says when to look (design section 6). A waiter looks at the key once
after it is on the list, and the listener looks again at every reconnect and every few seconds, so no end is missed.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from streamwork.broker.resend import backoff_s
from streamwork.errors import StoreError
from streamwork.ids import random_id
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.store.sync_driver import SyncDriver

# A reply stream outlives its silent client by this much; renewed at a third of it.
REPLY_LIFE_MS = 600_000
# The wait in one XREAD, also the longest that a half-open connection goes unnoticed beyond the deadline.
BLOCK_MS = 2_000
# How often what is still awaited is looked up, in case a reply entry was trimmed or its stream had lapsed.
LOOK_AGAIN_S = 3.0
# What is remembered of ends that nobody waited for yet: as many as a reply stream holds, none larger than rides along.
_RECENT = 10_000
_RECENT_BYTES = 4096
# Handed to a waiter for whom there is nothing any more, since the result was not kept, and to one who is sent away.
_UNKNOWN, CLOSED = b"\nunknown\n", b"\nclosed\n"

Waiter = Callable[[bytes], None]
logger = logging.getLogger(__name__)


class _Listening:
    """What belongs to one listener thread, so that one that ends late cannot disturb its successor."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None
        self.connection_id = 0
        self.looked_s = self.renewed_s = -math.inf


class Results:
    """The waiting side of one app in one process.

    Args:
        another_driver: Makes a driver; the listener's is its own, since it blocks.
    """

    def __init__(self, another_driver: Callable[[], SyncDriver]) -> None:
        self._another_driver = another_driver
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._client_id: str | None = None
        self._lock = threading.Lock()
        self._queues: dict[str, QueueKeys] = {}
        self._cursors: dict[str, bytes] = {}
        self._waiters: dict[str, tuple[QueueKeys, list[Waiter]]] = {}
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._listening = _Listening()

    @property
    def client_id(self) -> str:
        """This process's name in `reply_to`; another one after a fork (rule 2)."""
        if self._pid != os.getpid():
            self._reset()
        if self._client_id is None:
            self._client_id = random_id(48)
        return self._client_id

    def is_watched(self, keys: QueueKeys) -> bool:
        """Whether `watch` was called for this queue."""
        return self._pid == os.getpid() and keys.tag in self._queues

    def watch(self, driver: SyncDriver, keys: QueueKeys) -> None:
        """Make this process's reply stream of a queue exist, and the listener read it. Blocking, once per queue."""
        client_id = self.client_id
        if keys.tag in self._queues:
            return
        driver.run(scripts.watch(keys, client_id, REPLY_LIFE_MS))
        with self._lock:
            self._queues[keys.tag] = keys
            self._cursors[keys.tag] = b"0-0"
            listening = self._listening
            if listening.thread is None:
                listening.thread = threading.Thread(
                    target=self._listen, args=(listening,), name="streamwork-results", daemon=True
                )
                listening.thread.start()
                return
        self._interrupt(driver, listening)

    @staticmethod
    def _interrupt(driver: SyncDriver, listening: _Listening) -> None:
        if listening.connection_id:
            driver.run(plain("CLIENT", "UNBLOCK", listening.connection_id))

    def wait(self, keys: QueueKeys, task_id: str, waiter: Waiter) -> None:
        """Call `waiter` with the result record when the message ends; on the listener's thread, or at once if known.

        Call `watch` for the queue first, and look at the result key after this.
        """
        with self._lock:
            record = self._recent.get(task_id)
            if record is None:
                self._waiters.setdefault(task_id, (keys, []))[1].append(waiter)
                return
        waiter(record)

    def count(self) -> int:
        """Return how many messages are waited for."""
        return len(self._waiters)

    def forget(self, task_id: str, waiter: Waiter) -> None:
        """Take a waiter off the list."""
        with self._lock:
            entry = self._waiters.get(task_id)
            if entry is not None and waiter in entry[1]:
                entry[1].remove(waiter)
                if not entry[1]:
                    del self._waiters[task_id]

    def ended(self, task_id: str, record: bytes) -> None:
        """Hand a result record to whoever waits for it, and keep it for whoever will ask soon."""
        # Every end is the last one but that of a dead letter: it may be retried, by any process.
        is_last = not record.startswith(b"dead\n", record.find(b"\n") + 1)
        with self._lock:
            if is_last and len(record) <= _RECENT_BYTES:
                self._recent[task_id] = record
                if len(self._recent) > _RECENT:
                    self._recent.popitem(last=False)
            _, waiters = self._waiters.pop(task_id, (None, []))
        _call(waiters, record)

    def close(self) -> None:
        """Stop the listener; whoever still waits hears `CLOSED`."""
        if self._pid != os.getpid():
            self._reset()
            return
        listening = self._listening
        listening.stop.set()
        thread = listening.thread
        if thread is not None and thread is not threading.current_thread():
            driver = self._another_driver()
            try:
                self._interrupt(driver, listening)
            except StoreError:
                pass  # it ends by itself at the end of its read
            finally:
                driver.close()
            try:
                thread.join(BLOCK_MS / 1000 + 1)
            except RuntimeError:
                pass  # Ctrl-C came while it was being started
        with self._lock:
            left = [waiter for _, waiters in self._waiters.values() for waiter in waiters]
        self._reset()
        _call(left, CLOSED)

    def _listen(self, listening: _Listening) -> None:
        driver: SyncDriver | None = None
        failures = 0
        while not listening.stop.is_set():
            try:
                if driver is None:
                    driver = self._another_driver()
                    listening.connection_id = driver.link().greeting.client_id
                    listening.looked_s = listening.renewed_s = -math.inf  # at once, also on a machine just started
                self._listen_once(driver, listening)
                failures = 0
            except Exception as error:
                listening.connection_id = 0
                if driver is not None:
                    driver.close()
                    driver = None
                failures += 1
                if not isinstance(error, StoreError):
                    logger.exception("waiting for results failed, and is tried again")
                listening.stop.wait(backoff_s(failures))
        listening.connection_id = 0
        if driver is not None:
            driver.close()

    def _listen_once(self, driver: SyncDriver, listening: _Listening) -> None:
        now_s = time.monotonic()
        if now_s - listening.renewed_s > REPLY_LIFE_MS / 3000:
            self._renew(driver, list(self._queues.values()))
            listening.renewed_s = now_s
        if now_s - listening.looked_s > LOOK_AGAIN_S:
            self._look_again(driver)
            listening.looked_s = now_s
        with self._lock:
            watched = {keys.reply(self.client_id): tag for tag, keys in self._queues.items()}
            cursors = [self._cursors[tag] for tag in watched.values()]
        read = plain("XREAD", "COUNT", 1000, "BLOCK", BLOCK_MS, "STREAMS", *watched, *cursors)
        for stream, entries in driver.run(read, BLOCK_MS / 1000 + 5) or ():
            if listening.stop.is_set():
                return
            tag = watched[stream.decode()]
            for _, fields in entries:
                facts = dict(zip(fields[::2], fields[1::2], strict=False))
                self._end(driver, tag, facts.get(b"i", b"").decode(errors="replace"), facts.get(b"v", b""))
            with self._lock:
                self._cursors[tag] = entries[-1][0]

    def _end(self, driver: SyncDriver, tag: str, task_id: str, record: bytes) -> None:
        if record:
            self.ended(task_id, record)
        elif task_id in self._waiters:
            # Too large to ride along: only the key knows. Whoever asks later looks there first.
            self.ended(task_id, driver.run(plain("GET", self._queues[tag].result(task_id))) or _UNKNOWN)

    def _renew(self, driver: SyncDriver, queues: Iterable[QueueKeys]) -> None:
        for keys in queues:
            if driver.run(scripts.watch(keys, self.client_id, REPLY_LIFE_MS)):
                with self._lock:
                    self._cursors[keys.tag] = b"0-0"

    def _look_again(self, driver: SyncDriver) -> None:
        with self._lock:
            by_queue: dict[str, list[str]] = {}
            for task_id, (keys, _) in self._waiters.items():
                by_queue.setdefault(keys.tag, []).append(task_id)
        # A stream that someone deleted is written to by nobody, so it has to be there before the look.
        self._renew(driver, [self._queues[tag] for tag in by_queue])
        for tag, task_ids in by_queue.items():
            keys = self._queues[tag]
            for start in range(0, len(task_ids), 500):
                some = task_ids[start : start + 500]
                records: list[Any] = driver.run(plain("MGET", *map(keys.result, some)))
                for task_id, record in zip(some, records, strict=True):
                    if record is not None:
                        self.ended(task_id, record)


def _call(waiters: list[Waiter], record: bytes) -> None:
    for waiter in waiters:
        try:
            waiter(record)
        except Exception:
            logger.debug("a waiter is gone", exc_info=True)
