"""One run of one scenario: its own Redis, its workers, its producers, its chance; all of it gone at the end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psutil

from streamwork import Streamwork
from streamwork.errors import StreamworkError
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.wire.codec import unpacker
from tests import leaks
from tests.apps import ledger
from tests.faults.checker import QueueEnd, check
from tests.faults.history import History
from tests.faults.servers import SERVER_KINDS
from tests.faults.workload import MIX, WITHOUT_BOXES, Load, Producer
from tests.helpers import WorkerProcess, state_of, wait_until
from tests.system.kit import is_gone

NAMESPACE = "faults"
# How long what was acknowledged may take to end once the fault is over; what did not by then is lost or stuck.
PATIENCE_S = 40.0
# The same after a scenario has failed: its history is worth a look, and not a minute.
_SHORT_PATIENCE_S = 10.0
# Waiters ask every 2 s by themselves: who was told nothing for so long after all has ended never will be.
QUIET_S = 8.0
# In how many runs bodies run in processes of their own, too.
_BOXED_SHARE = 0.25

_text = unpacker(str)


class NotProven(Exception):
    """The fault did not bite, so the run says nothing."""


class Stage:
    """What a scenario works with.

    Attributes:
        random: The only source of chance, from the scenario's name and the seed.
        server: The Redis, see `SERVER_KINDS`.
        url: What workers and producers are given unless told otherwise; a scenario may set it, as to a proxy's.
        settings: Of the producer's app, by dotted name; a scenario may set some before it first sends.
        history: Where everybody writes.
        driver: A connection of the stage's own, straight to the server.
        producer: Sends, and waits for what it sent.
        proofs: What was proven so far.
    """

    def __init__(self, scenario, seed):
        self.scenario, self.seed = scenario, seed
        self.random = random.Random(f"{scenario.name}:{seed}")
        self.folder = Path(tempfile.mkdtemp(prefix="sw-fault-"))
        self.history = History(self.folder / "history")
        self.gates = self.history.folder / ledger.GATES
        self.gates.mkdir()
        self.proofs, self.workers, self._closing, self._stops = [], [], [], []
        self.server = SERVER_KINDS[scenario.server_kind](self)
        self.url, self.settings = self.server.url, {}
        self.keys = QueueKeys(NAMESPACE, "default")
        self._driver = self._producer = None

    @property
    def driver(self):
        """The stage's own connection, made when first asked for."""
        if self._driver is None:
            self._driver = SyncDriver(Endpoint(self.server.url), ALL_SCRIPTS)
        return self._driver

    @property
    def producer(self):
        """The sender in this process, made when first asked for: `url` may have been set by then."""
        if self._producer is None:
            self._producer = Producer(self.history, self.app(**self.settings))
        return self._producer

    def app(self, url=None, **settings):
        """Return an app with the ledger's tasks, closed at the end."""
        app = ledger.declare(Streamwork(NAMESPACE, url=url or self.url, settings=settings))
        self._closing.append(app.close)
        return app

    def on_close(self, function):
        """Call this at the end; last in, first out."""
        self._closing.append(function)

    def redis(self, *command):
        """Run a command on the stage's own connection."""
        return self.driver.run(plain(*command))

    def worker(self, *, url=None, ttl_s=None, ready=True, environ=None, args=(), **options):
        """Start a worker of the ledger: `slots=4` sets `worker.slots`, and so on."""
        settings = {"liveness.ttl_s": ttl_s or self.scenario.ttl_s}
        settings |= {f"worker.{name}": value for name, value in options.items()}
        worker = WorkerProcess(
            "tests.apps.ledger:app", namespace=NAMESPACE, redis_url=url or self.url, folder=self.folder,
            settings=settings, args=args, ready=ready,
            environ={"STREAMWORK_TEST_HISTORY": str(self.history.folder), **(environ or {})},
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    def pair(self, **options):
        """Start two workers, side by side, and return them once both are ready."""
        both = [self.worker(ready=False, **options) for _ in range(2)]
        for worker in both:
            worker.until("worker ready")
        return both

    def load(self, **options):
        """Start a mixed load in the background, see `Load`; it ends with `settle`.

        Bodies in processes of their own are in it in one run of four: the pools are most of what a run computes.
        """
        mix = MIX if self.random.random() < _BOXED_SHARE else WITHOUT_BOXES
        load = Load(self.producer, self.random, **{"mix": mix, **options})
        self.on_settle(load.stop)
        return load

    def on_settle(self, function):
        """Call this before all is to end, also where the scenario failed: it stops a sender, and may come twice."""
        self._stops.append(function)

    def sent(self, more, within_s=20.0):
        """Wait until so many further messages were acknowledged: the load goes on."""
        wanted = self.producer.acknowledged + more
        self.until(lambda: self.producer.acknowledged >= wanted, f"{more} more are sent", within_s)

    def open(self, which="all"):
        """Let held bodies go on: all, those of one label, or those in one process."""
        (self.gates / str(which)).touch()

    def started(self, label, times=1, within_s=20.0):
        """Wait until the message has begun so often, and return those records."""
        return self.until(lambda: self._runs(label, times), f"{label} begins {times} times", within_s)

    def _runs(self, label, times):
        found = self.history.of("started", label)
        return found if len(found) >= times else None

    def until(self, predicate, what, within_s=20.0):
        """Wait for a fact; a failure shows the tail of each worker's log."""
        try:
            return wait_until(predicate, what, within_s)
        except AssertionError as error:
            tails = [f"{worker.log.name}: {worker.text()[-600:]}" for worker in self.workers]
            raise AssertionError("\n".join([str(error), *tails])) from None

    def fault(self, what, *processes, ids=()):
        """Note, right before it is done, what is done to which processes; recovery is measured from here.

        Args:
            what: For people.
            processes: Pids, or workers: those count with all their descendants.
            ids: Messages that have to recover although no body of theirs has begun.
        """
        pids = [pid for one in processes for pid in ([one] if isinstance(one, int) else family(one.pid))]
        self.history.write("fault", what=what, pids=pids, ids=list(ids))
        return pids

    def prove(self, what, fact):
        """Note a sign that the fault took effect; where the fact is not true, the run fails."""
        if not fact:
            raise NotProven(what)
        text = what if fact is True else f"{what}: {fact}"
        self.proofs.append(text)
        self.history.write("proof", what=text)

    def kill(self, worker, what="worker killed", ids=()):
        """SIGKILL a worker with all its processes, as a machine that loses power does, and prove it; see `fault`."""
        pids = self.fault(what, worker, ids=ids)
        worker.kill()
        self.prove("the supervisor ended by SIGKILL", worker.process.returncode == -signal.SIGKILL)
        self.until(lambda: all(map(is_gone, pids)), "its processes are gone")
        self.prove("processes that ended with it", len(pids) - 1)

    def erased(self, until_ms, lane=None):
        """Note that what had its entry by then was destroyed on purpose, and wait for none of it.

        Args:
            until_ms: When, by Redis' clock; that of entry ids, so it tells also where senders were busy.
            lane: Only what is on this one.
        """
        self.history.write("erased", until_ms=until_ms, lane=lane)
        if self._producer is not None:
            self._producer.forget(until_ms, lane)

    def answered(self):
        """Note that a Redis that was away answers: recovery is the first start of a body from here."""
        self.history.write("answered")

    def planted(self, task_id, reason="undecodable"):
        """Note that a dead letter of this id is expected, though nobody sent it."""
        self.history.write("planted", task_id=task_id, expects=reason)

    def state(self):
        """Return everything in the queue."""
        return state_of(self.driver, self.keys)

    def settle(self, *, has_failed=False):
        """End load, open all gates, and wait until everything has ended and was seen."""
        for stop in self._stops:
            stop()
        self.open()
        give_up_at = time.monotonic() + (_SHORT_PATIENCE_S if has_failed else PATIENCE_S)
        busy_at = time.monotonic()
        while (now := time.monotonic()) < min(give_up_at, busy_at + QUIET_S):
            if self._backlog():
                busy_at = now
            elif self._producer is None or not self._producer.left:
                return
            time.sleep(0.02)

    def _backlog(self):
        try:
            added, settled = (sum(map(int, self.redis("HVALS", key))) for key in (self.keys.added, self.keys.settled))
            return added - settled + int(self.redis("ZCARD", self.keys.due)) + self._parked()
        except StreamworkError:
            return 1

    def _parked(self):
        return int(self.redis("HLEN", self.keys.parked_body))

    def judge(self):
        """Return the checker's findings over all that was written and what the queue says now."""
        for worker in self.workers:
            worker.end()
        if self._producer is not None:
            self._producer.close()
        try:
            end = self._end()
        except Exception as error:
            end = QueueEnd(leaks=(f"the queue cannot be read: {error}",))
        return check(self.history.read(), end, is_ordered=self.scenario.is_ordered)

    def _end(self):
        state = self.state()
        results = {task_id: (one.state, _value(one)) for task_id, one in state.results.items()}
        return QueueEnd(
            journal=tuple((record.id, record.state) for record in state.journal),
            dead={task_id: letter.reason for task_id, letter in state.dead.items()},
            results=results,
            backlog=state.backlog + self._parked(),
            leaks=(*leaks.leaked(self.driver, NAMESPACE), *leaks.held(self.driver, self.keys)),
        )

    def close(self, *, is_kept=False):
        """Kill and close everything; history and logs go too, unless they are to be kept."""
        for worker in self.workers:
            worker.end()
        if self._producer is not None:
            self._producer.close()
        for close in reversed(self._closing):
            close()
        if self._driver is not None:
            self._driver.close()
        if self.server.pid:
            os.kill(self.server.pid, signal.SIGCONT)
        self.server.close()
        if not is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)


def _value(result):
    return _text(result.payload) if result.state == "succeeded" else None


def family(pid):
    """Return a process and all its descendants, pids."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return [pid]


def process_state(pid):
    """Return the letter that the kernel gives a process, such as T for stopped; "" once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
