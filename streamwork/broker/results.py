"""Wait for results without polling: one listener thread per process serves any number of waiters.

The result key is the truth; the reply stream only says when to look (design section 6). A waiter looks at the key once
after it is on the list, and the listener looks again at every reconnect and every few seconds, so no end is missed.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from streamwork.broker.resend import backoff_s
from streamwork.errors import StoreError
from streamwork.ids import random_id
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.store.sync_driver import SyncDriver

# A reply stream outlives its silent client by this much; renewed at a third of it.
REPLY_LIFE_MS = 600_000
# The wait in one XREAD, also the longest that a half-open connection goes unnoticed beyond the deadline.
BLOCK_MS = 2_000
# How often what is still awaited is looked up, in case a reply entry was trimmed or its stream had lapsed.
LOOK_AGAIN_S = 3.0
_RECENT = 10_000

Waiter = Callable[[bytes], None]


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
        self._driver: SyncDriver | None = None
        self._listening_id = 0
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._looked_s = self._renewed_s = 0.0

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
        self._make_stream(driver, keys, client_id)
        with self._lock:
            self._queues[keys.tag] = keys
            self._cursors[keys.tag] = b"0-0"
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="streamwork-results", daemon=True)
                self._thread.start()
                return
        self._interrupt(driver)

    @staticmethod
    def _make_stream(driver: SyncDriver, keys: QueueKeys, client_id: str) -> None:
        reply = keys.reply(client_id)
        driver.run(plain("XADD", reply, "*", "i", "", "v", ""))
        driver.run(plain("PEXPIRE", reply, REPLY_LIFE_MS))

    def _interrupt(self, driver: SyncDriver) -> None:
        if self._listening_id:
            driver.run(plain("CLIENT", "UNBLOCK", self._listening_id))

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
        with self._lock:
            self._recent[task_id] = record
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
            _, waiters = self._waiters.pop(task_id, (None, []))
        for waiter in waiters:
            waiter(record)

    def close(self) -> None:
        """Stop the listener; waiters are left without an answer."""
        self._stopping = True
        thread = self._thread
        if thread is not None and self._pid == os.getpid() and thread is not threading.current_thread():
            if self._listening_id:
                driver = self._another_driver()
                try:
                    driver.run(plain("CLIENT", "UNBLOCK", self._listening_id))
                except StoreError:
                    pass  # it ends by itself at the end of its read
                finally:
                    driver.close()
            thread.join(BLOCK_MS / 1000 + 1)
        self._reset()

    def _listen(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                self._listen_once()
                failures = 0
            except StoreError:
                self._drop()
                failures += 1
                time.sleep(backoff_s(failures))
        self._drop()

    def _drop(self) -> None:
        self._listening_id = 0
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def _listen_once(self) -> None:
        driver = self._driver
        if driver is None:
            driver = self._driver = self._another_driver()
            self._listening_id = driver.link().greeting.client_id
            self._looked_s = self._renewed_s = 0.0
        now_s = time.monotonic()
        if now_s - self._renewed_s > REPLY_LIFE_MS / 3000:
            self._renew(driver)
            self._renewed_s = now_s
        if now_s - self._looked_s > LOOK_AGAIN_S:
            self._look_again(driver)
            self._looked_s = now_s
        with self._lock:
            watched = {keys.reply(self.client_id): tag for tag, keys in self._queues.items()}
            cursors = [self._cursors[tag] for tag in watched.values()]
        reply = driver.run(plain("XREAD", "COUNT", 1000, "BLOCK", BLOCK_MS, "STREAMS", *watched, *cursors), BLOCK_MS / 1000 + 5)
        for stream, entries in reply or ():
            for _, fields in entries:
                task_id, record = fields[1].decode(), fields[3]
                if task_id:
                    self._end(driver, watched[stream.decode()], task_id, record)
            with self._lock:
                self._cursors[watched[stream.decode()]] = entries[-1][0]

    def _end(self, driver: SyncDriver, tag: str, task_id: str, record: bytes) -> None:
        # Too large to ride along, or not kept at all: only the key knows.
        found = record or driver.run(plain("GET", self._queues[tag].result(task_id)))
        self.ended(task_id, found or b"\nunknown\n")

    def _renew(self, driver: SyncDriver) -> None:
        for keys in list(self._queues.values()):
            if not driver.run(plain("PEXPIRE", keys.reply(self.client_id), REPLY_LIFE_MS)):
                self._make_stream(driver, keys, self.client_id)
                with self._lock:
                    self._cursors[keys.tag] = b"0-0"

    def _look_again(self, driver: SyncDriver) -> None:
        with self._lock:
            by_queue: dict[str, list[str]] = {}
            for task_id, (keys, _) in self._waiters.items():
                by_queue.setdefault(keys.tag, []).append(task_id)
        for tag, task_ids in by_queue.items():
            keys = self._queues[tag]
            for start in range(0, len(task_ids), 500):
                some = task_ids[start : start + 500]
                records: list[Any] = driver.run(plain("MGET", *map(keys.result, some)))
                for task_id, record in zip(some, records, strict=True):
                    if record is not None:
                        self.ended(task_id, record)
