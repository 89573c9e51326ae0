"""W7: a worker is killed; W8: Redis restarts."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

from benchlib.peer import Peer
from benchlib.processes import Workers
from benchlib.recorder import FINISHED, STARTED
from benchlib.records import Record, RecordFile
from benchlib.server import PrivateRedis
from benchlib.settings import BenchError, Options, logs
from benchlib.throughput import Figures

_KILL_TASKS, _KILL_SLOTS, _KILL_TASK_S = 20, 10, 5.0
_SUCCESSOR_AFTER_S = 0.5
_REDIS_DOWN_S = 1.5
_RESTART_AT_SHARE = 0.25
_QUIET_S = 75.0
_POLL_S = 0.1

CANCELLED = threading.Event()
"""Set when the user stops the benchmark: runs in threads end at their next look."""


def run_kill(options: Options, peer: Peer, variant: str, port: int) -> Figures:
    """Run W7: SIGKILL the whole worker with 10 of 20 five-second tasks running; a successor starts 0.5 s later."""
    with ExitStack() as stack:
        server = stack.enter_context(PrivateRedis(port, logs()))
        records = stack.enter_context(RecordFile())
        peer.produce(port, "enqueue", task="sleep", tasks=_KILL_TASKS, seconds=_KILL_TASK_S)
        victim = stack.enter_context(Workers(peer, variant, server.port, records.path))
        records.wait(_KILL_SLOTS, 60.0, victim.alive)
        # The bodies are well under way, and leases or heartbeats have been renewed at least once or twice.
        time.sleep(1.5)
        killed_ns = time.monotonic_ns()
        victim.kill()
        interrupted = _unfinished(records.read())
        time.sleep(_SUCCESSOR_AFTER_S)
        successor = stack.enter_context(Workers(peer, variant, server.port, records.path))
        deadline = time.monotonic() + options.fault_window_s
        while time.monotonic() < deadline and successor.alive() and not CANCELLED.is_set():
            if records.delivery(_KILL_TASKS).unique == _KILL_TASKS:
                break
            time.sleep(_POLL_S)
        if CANCELLED.is_set():
            raise BenchError("stopped by the user")
        time.sleep(1.0)
        return _kill_figures(records, interrupted, killed_ns) | {"alive": successor.alive()}


def _unfinished(events: list[Record]) -> set[int]:
    finished = {event.task_id for event in events if event.kind == FINISHED}
    return {event.task_id for event in events if event.kind == STARTED} - finished


def _kill_figures(records: RecordFile, interrupted: set[int], killed_ns: int) -> Figures:
    restarts: dict[int, float] = {}
    ends: list[float] = []
    for event in records.read():
        after_s = (event.at_ns - killed_ns) / 1e9
        if event.kind == STARTED and event.task_id in interrupted and after_s > 0:
            restarts.setdefault(event.task_id, after_s)
        elif event.kind == FINISHED:
            ends.append(after_s)
    delivery = records.delivery(_KILL_TASKS)
    everyone = len(restarts) == len(interrupted)
    return {
        **delivery.as_dict(),
        "interrupted": len(interrupted),
        "restarted": len(restarts),
        "first_restart_s": min(restarts.values(), default=None),
        "all_restarted_s": max(restarts.values(), default=None) if everyone else None,
        "all_done_s": max(ends, default=None) if delivery.missing == 0 else None,
    }


def run_restart(options: Options, peer: Peer, variant: str, port: int) -> Figures:
    """Run W8: Redis (AOF everysec) gets SIGTERM at a quarter of the drain and is back 1.5 s later."""
    with ExitStack() as stack:
        server = stack.enter_context(PrivateRedis(port, logs(), append_only=True))
        records = stack.enter_context(RecordFile())
        tasks = max(1000, peer.spec.restart_tasks * options.tasks // 20_000)
        sent = int(peer.produce(port, "enqueue", tasks=tasks, bulk=1, cap=60)["sent"])
        workers = stack.enter_context(Workers(peer, variant, port, records.path))
        records.wait(max(1, int(sent * _RESTART_AT_SHARE)), 60.0, workers.alive, quiet_s=30.0)
        down_at = time.monotonic()
        server.stop()
        done_when_down = records.count()
        time.sleep(max(0.0, _REDIS_DOWN_S - (time.monotonic() - down_at)))
        server.start()
        up_at = time.monotonic()
        _wait_all(options, records, workers, sent)
        time.sleep(0.5)
        up_ns = up_at * 1e9
        after = sorted((event.at_ns - up_ns) / 1e9 for event in records.read() if event.at_ns > up_ns)
        return {
            **records.delivery(sent).as_dict(),
            "done_when_down": done_when_down,
            "down_s": up_at - down_at,
            "first_after_s": after[0] if after else None,
            "last_after_s": after[-1] if after else None,
            "alive": workers.alive(),
        }


def _wait_all(options: Options, records: RecordFile, workers: Workers, sent: int) -> None:
    """Wait until every id is done, the window closes, the workers are gone, or 75 s bring nothing new."""
    deadline = time.monotonic() + options.fault_window_s
    seen, progress_at = 0, time.monotonic()
    while time.monotonic() < min(deadline, progress_at + _QUIET_S) and workers.alive():
        count = records.count()
        if count >= sent and records.delivery(sent).missing == 0:
            return
        if count != seen:
            seen, progress_at = count, time.monotonic()
        time.sleep(_POLL_S)
