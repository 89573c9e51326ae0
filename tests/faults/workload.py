"""Who sends and who waits: each send and each answer is a record; mixed load comes from threads of this process."""

from __future__ import annotations

import queue
import random
import threading

from streamwork.errors import EnqueueUnknown, ResultGone, StreamworkError, TaskFailed
from tests.faults.checker import VALUE

# (weight, task, arguments behind the label by chance)
WITHOUT_BOXES = (
    (6, "quick", lambda chance: ()),
    (4, "slow", lambda chance: (chance.uniform(0.005, 0.1),)),
    (1, "slow", lambda chance: (chance.uniform(0.3, 0.8),)),
    (3, "threaded", lambda chance: (chance.uniform(0.005, 0.1),)),
    (2, "stubborn", lambda chance: (chance.randint(1, 3),)),
)
# Each worker that meets one starts as many processes as there are cores, each of which imports everything.
MIX = (*WITHOUT_BOXES, (1, "boxed", lambda chance: (chance.uniform(0.005, 0.05),)))


class Producer:
    """Sends tasks of the ledger on one app, and waits for their ends; safe for threads.

    Args:
        history: Where it writes.
        app: What it sends on.
        waiters: Threads that wait for the ends; with 0 the caller does, by `see` or `asee`.

    Attributes:
        acknowledged: How many of its messages were.
        left: How many of those are waited for.
    """

    def __init__(self, history, app, waiters=2):
        self.history, self.app = history, app
        self._lock, self._count = threading.Lock(), 0
        self._sent, self.left, self.acknowledged = queue.SimpleQueue(), 0, 0
        self._has_given_up, self._forgotten = False, []
        self._waiters = [threading.Thread(target=self._wait, daemon=True) for _ in range(waiters)]
        for waiter in self._waiters:
            waiter.start()

    def send(self, task, *args, label=None, expects=VALUE, limits=None, **options):
        """Send one, and return its handle, or None where it was not acknowledged; options are the message's."""
        label, call = self._attempted(task, args, label, expects, options, limits)
        try:
            handle = call.enqueue()
        except Exception as error:
            return self._refused(label, error)
        self._acknowledged(label, handle)
        self._wait_for(label, handle)
        return handle

    def send_many(self, task, labels, *args):
        """Send several in one chunk, so that one read may bring them all; their handles."""
        calls = [self._attempted(task, args, label, VALUE, {})[1] for label in labels]
        handles = self.app.enqueue_many(calls)
        for label, handle in zip(labels, handles, strict=True):
            self._acknowledged(label, handle)
            self._wait_for(label, handle)
        return handles

    def _wait_for(self, label, handle):
        if self._waiters:
            with self._lock:
                self.left += 1
            self._sent.put((label, handle))

    async def asend(self, task, *args, label=None, expects=VALUE, **options):
        """Send one from a loop; nobody waits for it but the caller."""
        label, call = self._attempted(task, args, label, expects, options)
        try:
            handle = await call.aenqueue()
        except Exception as error:
            return self._refused(label, error)
        self._acknowledged(label, handle)
        return handle

    def _attempted(self, task, args, label, expects, options, limits=None):
        with self._lock:
            self._count += 1
            label = label or f"{task}-{self._count}"
        known = self.app.tasks[f"ledger.{task}"]
        facts = {"limits": limits} if limits else {}
        self.history.write("attempted", label, task=task, expects=expects, **facts)
        return label, (known.options(**options) if options else known).call(label, *args)

    def _refused(self, label, error):
        if isinstance(error, EnqueueUnknown):
            self.history.write("doubtful", label, error=str(error), ids=error.task_ids)
        else:
            kind = "refused" if isinstance(error, StreamworkError) else "broke"
            self.history.write(kind, label, error=f"{type(error).__name__}: {error}")

    def _acknowledged(self, label, handle):
        self.history.write("acknowledged", label, handle.id, lane=handle.lane, entry=handle.entry)
        with self._lock:
            self.acknowledged += 1

    def forget(self, until_ms, lane=None):
        """Wait no longer for what has an entry of that time or before, or of these only what is on one lane."""
        self._forgotten.append((until_ms, lane))

    def _is_forgotten(self, handle):
        at_ms = int((handle.entry or "0").partition("-")[0])
        return any(at_ms <= until_ms and lane in (None, handle.lane) for until_ms, lane in self._forgotten)

    def close(self):
        """Wait for nothing any more: what was not seen by now is unseen, and the threads end."""
        self._has_given_up = True
        for _ in self._waiters:
            self._sent.put(None)
        for waiter in self._waiters:
            waiter.join(10)

    def _wait(self):
        while (sent := self._sent.get()) is not None:
            label, handle = sent
            if not self.see(label, handle, 0.05 if self._has_given_up else 0.5) and not self._is_forgotten(handle):
                if not self._has_given_up:
                    self._sent.put(sent)  # the others are not to wait for a held one
                    continue
                self.history.write("unseen", label, handle.id, error="no end within the patience")
            with self._lock:
                self.left -= 1

    def see(self, label, handle, timeout_s):
        """Wait for one end, and write it down; False when the time is up or Redis is away."""
        try:
            if not handle.wait(timeout_s):
                return False
            value = handle.result(5)
        except StreamworkError as error:
            return self._seen_error(label, handle, error)
        self.history.write("seen", label, handle.id, state="succeeded", value=value)
        return True

    async def asee(self, label, handle, timeout_s):
        """Wait for one end on a loop, and write it down; False when the time is up or Redis is away."""
        try:
            value = await handle.aresult(timeout_s)
        except StreamworkError as error:
            return self._seen_error(label, handle, error)
        self.history.write("seen", label, handle.id, state="succeeded", value=value)
        return True

    def _seen_error(self, label, handle, error):
        if isinstance(error, TaskFailed):
            self.history.write("seen", label, handle.id, state=error.state, value=None, error=str(error)[:300])
        elif isinstance(error, ResultGone):
            self.history.write("unseen", label, handle.id, error=str(error))
        else:
            return False  # Redis is away: that is the scenario's business, not the waiter's
        return True


class Load:
    """Mixed tasks from threads until stopped.

    Args:
        producer: Who sends.
        chance: Of the stage; each thread gets its own from it, so that threads do not share a sequence.
        threads: How many.
        pause_s: Mean pause between the sends of one thread.
        mix: As `MIX`.
        options: Options of every message, such as ``priority``.
    """

    def __init__(self, producer, chance, *, threads=2, pause_s=0.03, mix=MIX, options=None):
        self._producer, self._pause_s, self._mix, self._options = producer, pause_s, mix, options or {}
        self._stop = threading.Event()
        seeds = [chance.random() for _ in range(threads)]
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in seeds]
        for thread in self._threads:
            thread.start()

    def _run(self, seed):
        chance = random.Random(seed)
        weights = [weight for weight, _, _ in self._mix]
        while not self._stop.is_set():
            _, task, arguments = chance.choices(self._mix, weights)[0]
            self._producer.send(task, *arguments(chance), **self._options)
            self._stop.wait(chance.expovariate(1 / self._pause_s))

    def stop(self):
        """Send no more; returns once the threads have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
