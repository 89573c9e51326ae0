"""What D1-D3 and H1 ask of streamwork, from inside its virtual environment; prints one marked JSON line.

    python -m benchlib.steering ahead|live|cron|due|cancel|pause|resume|history …

Instants for tasks are wall clock, as `run_at` and Redis are; instants of requests are the recorder's monotonic clock.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from benchlib.peers.streamwork_ import app, held, noop, occurrence_id, planned
from benchlib.recalling import recall
from benchlib.recorder import LAYOUT
from streamwork.store import scripts
from streamwork.store.commands import plain

Figures = dict[str, Any]

# The first moment comes after the worker has heard of all that is scheduled.
_HEAD_START_S = 1.0
# So that each message is due before some that were sent earlier, and the promoter must be told of most of them.
_LIVE_DELAYS_S = (0.05, 0.5)
_FAR_S = 30 * 86_400
_FEED_S = 0.002
_SETTLE_S = 0.05
_BATCH = 200
_SEED = 7


def _instant(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _ahead(options: argparse.Namespace) -> Figures:
    """Schedule everything before the first moment."""
    dice, begin_ms = random.Random(_SEED), (time.time() + _HEAD_START_S) * 1000
    due_ms = [int(begin_ms + dice.random() * options.seconds * 1000) for _ in range(options.tasks)]
    app.enqueue_many(noop.options(run_at=_instant(at_ms)).call(i) for i, at_ms in enumerate(due_ms))
    time.sleep(max(0.0, max(due_ms) / 1000 - time.time()))
    return {"due_ms": due_ms}


def _live(options: argparse.Namespace) -> Figures:
    """Schedule one after the other while others come due."""
    dice, begun = random.Random(_SEED), time.monotonic()
    due_ms: list[int] = []
    for i in range(options.tasks):
        time.sleep(max(0.0, begun + i * options.seconds / options.tasks - time.monotonic()))
        due_ms.append(int((time.time() + dice.uniform(*_LIVE_DELAYS_S)) * 1000))
        noop.options(run_at=_instant(due_ms[-1])).enqueue(i)
    time.sleep(_LIVE_DELAYS_S[1])
    return {"due_ms": due_ms}


def _until_half_past() -> None:
    """Return in the middle of a second, so that no occurrence is near."""
    time.sleep(1 - (time.time() + 0.5) % 1)


def _cron(options: argparse.Namespace) -> Figures:
    """Let schedules of every second run for a while."""
    count, zones = max(1, options.tasks // int(options.seconds)), sorted(available_timezones())
    _until_half_past()
    first_s = int(time.time()) + 1
    for number in range(count):
        # One zone each: a calendar is searched once for all schedules that share it.
        app.schedules.add(f"s{number}", planned.call(number), cron="* * * * * *", tz=zones[number % len(zones)])
    time.sleep(options.seconds)
    _until_half_past()
    last_s = int(time.time())
    for number in range(count):
        app.schedules.remove(f"s{number}")
    due = {occurrence_id(s, n): s * 1000 for s in range(first_s, last_s + 1) for n in range(count)}
    return {"ids": list(due), "due_ms": list(due.values())}


def _server_us() -> tuple[float, int, float]:
    """Return the server's processor time in us, and calls and us of scripts."""
    lines = app.connection.driver.run(plain("INFO", "everything")).decode().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    script = dict(part.split("=") for part in facts.get("cmdstat_evalsha", "calls=0,usec=0").split(","))
    cpu_s = float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])
    return cpu_s * 1e6, int(script["calls"]), float(script["usec"])


def _due(options: argparse.Namespace) -> Figures:
    """Measure a promoter's looks on a queue where so many wait for another month."""
    far = datetime.fromtimestamp(time.time() + _FAR_S, UTC)
    app.enqueue_many(noop.options(run_at=far).call(i) for i in range(options.waiting))
    driver, keys = app.connection.driver, app.connection.keys("default")
    lanes = ["1:"]

    def look() -> int:
        return driver.run(scripts.promote(keys, lanes, _BATCH)).moved

    figures: Figures = {"waiting": driver.run(plain("ZCARD", keys.due))}
    look()
    before = _server_us()
    for _ in range(options.tasks):
        look()
    after = _server_us()
    figures["tick_us"] = (after[0] - before[0]) / options.tasks
    figures["tick_script_us"] = (after[2] - before[2]) / (after[1] - before[1])
    app.enqueue_many(noop.options(delay=0.001).call(i) for i in range(options.tasks))
    time.sleep(_SETTLE_S)
    before, moved = _server_us(), 0
    while count := look():
        moved += count
    after = _server_us()
    figures["promoted"] = moved
    figures["promoted_us"] = (after[0] - before[0]) / max(moved, 1)
    return figures


def _events() -> int:
    return Path(os.environ["BENCH_RECORDS"]).stat().st_size // LAYOUT.size


def _until(is_true: Callable[[], bool], within_s: float = 10.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not is_true() and time.monotonic() < give_up_at:
        time.sleep(0.0005)


def _cancel(options: argparse.Namespace) -> Figures:
    """Cancel running bodies one after the other, each a moment after it began."""
    dice = random.Random(_SEED)
    asked, ended = [], []
    for i in range(options.tasks):
        handle, before = held.enqueue(i), _events()
        _until(lambda seen=before: _events() > seen)
        time.sleep(dice.uniform(0.01, _SETTLE_S))
        asked.append(time.monotonic_ns())
        handle.cancel(terminate=True)
        handle.wait(timeout=10)
        ended.append(time.monotonic_ns())
    return {"asked": asked, "ended": ended}


def _feed(stop: threading.Event) -> None:
    number, begun = 0, time.monotonic()
    while not stop.is_set():
        noop.enqueue(number)
        number += 1
        stop.wait(max(0.0, begun + number * _FEED_S - time.monotonic()))


def _pause(options: argparse.Namespace) -> Figures:
    """Pause and resume a queue that something is sent to every 2 ms."""
    dice, stop = random.Random(_SEED), threading.Event()
    feed = threading.Thread(target=_feed, args=(stop,))
    feed.start()
    paused, resumed = [], []
    for _ in range(options.tasks):
        time.sleep(dice.uniform(0.03, 0.06))
        paused.append(time.monotonic_ns())
        app.pause(queue="default")
        time.sleep(dice.uniform(0.12, 0.15))
        resumed.append(time.monotonic_ns())
        app.resume(queue="default")
    time.sleep(0.3)
    stop.set()
    feed.join()
    return {"paused": paused, "resumed": resumed}


_ACTIONS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "ahead": _ahead,
    "live": _live,
    "cron": _cron,
    "due": _due,
    "cancel": _cancel,
    "pause": _pause,
    "resume": _pause,
    "history": lambda options: recall(options.waiting),
}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=_ACTIONS)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--waiting", type=int, default=1000)
    options = parser.parse_args()
    figures = _ACTIONS[options.action](options)
    sys.stdout.write("\nBENCH " + json.dumps(figures) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
