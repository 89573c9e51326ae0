"""Who sends and who waits: each send and each answer is a record; mixed load comes from threads of this process."""

from __future__ import annotations

import queue
import random
import threading
import time

from streamwork.errors import EnqueueUnknown, ResultGone, StreamworkError, TaskFailed
from tests.faults.checker import VALUE

# (weight, task, arguments behind the label by chance)
MIX = (
    (6, "quick", lambda chance: ()),
    (4, "slow", lambda chance: (chance.uniform(0.005, 0.1),)),
    (1, "slow", lambda chance: (chance.uniform(0.3, 0.8),)),
    (3, "threaded", lambda chance: (chance.uniform(0.005, 0.1),)),
    (2, "stubborn", lambda chance: (chance.randint(1, 3),)),
    (1, "boxed", lambda chance: (chance.uniform(0.005, 0.05),)),
)
_WAITERS = 2


class Producer:
    """Sends tasks of the ledger on one app, and waits for their ends; safe for threads.

    Args:
        history: Where it writes.
        app: What it sends on.

    Attributes:
        acknowledged: How many of its messages were.
    """

    def __init__(self, history, app):
        self.history, self.app = history, app
        self._lock, self._count = threading.Lock(), 0
        self._sent, self._left, self.acknowledged = queue.SimpleQueue(), 0, 0
        self._give_up_at = None
        self._waiters = [threading.Thread(target=self._wait, daemon=True) for _ in range(_WAITERS)]
        for waiter in self._waiters:
            waiter.start()

    def label(self, prefix):
        """Return a name that no other message of this producer has."""
        with self._lock:
            self._count += 1
            return f"{prefix}-{self._count}"

    def send(self, task, *args, label=None, expects=VALUE, **options):
        """Send one, and return its handle, or None where it was not acknowledged; options are the message's."""
        label = label or self.label(task)
        call = self.app.tasks[f"ledger.{task}"]
        self.history.write("attempted", label, task=task, expects=expects)
        try:
            handle = (call.options(**options) if options else call).enqueue(label, *args)
        except EnqueueUnknown as error:
            self.history.write("doubtful", label, error=str(error), ids=error.task_ids)
        except StreamworkError as error:
            self.history.write("refused", label, error=f"{type(error).__name__}: {error}")
        except Exception as error:
            self.history.write("broke", label, error=repr(error))
        else:
            self.history.write("acknowledged", label, handle.id, lane=handle.lane, entry=handle.entry)
            with self._lock:
                self._left += 1
                self.acknowledged += 1
            self._sent.put((label, handle))
            return handle
        return None

    def join(self, give_up_at):
        """Wait until the end of each message was seen, or until then (monotonic seconds)."""
        self._give_up_at = give_up_at
        while self._left and time.monotonic() < give_up_at:
            time.sleep(0.01)

    def close(self):
        """Wait for nothing any more; the threads end."""
        self._give_up_at = 0.0
        for _ in self._waiters:
            self._sent.put(None)
        for waiter in self._waiters:
            waiter.join(10)

    def _wait(self):
        while (sent := self._sent.get()) is not None:
            label, handle = sent
            if not self._see(label, handle, 0.5):
                if self._give_up_at is None or time.monotonic() < self._give_up_at:
                    self._sent.put(sent)  # the others are not to wait for a held one
                    continue
                self.history.write("unseen", label, handle.id, error="no end within the patience")
            with self._lock:
                self._left -= 1

    def _see(self, label, handle, timeout_s):
        try:
            if not handle.wait(timeout_s):
                return False
            self.history.write("seen", label, handle.id, state="succeeded", value=handle.result(5))
        except TaskFailed as error:
            self.history.write("seen", label, handle.id, state=error.state, value=None, error=str(error)[:300])
        except ResultGone as error:
            self.history.write("unseen", label, handle.id, error=str(error))
        except StreamworkError:
            time.sleep(0.05)  # Redis is away: that is the scenario's business, not the waiter's
            return False
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
