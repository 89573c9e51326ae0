"""W4: bodies that wait; W5: bodies that compute."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchlib.peer import Peer, clean_environment
from benchlib.processes import Workers
from benchlib.recorder import FINISHED, burn
from benchlib.records import RecordFile
from benchlib.settings import OPS
from benchlib.throughput import Arena, Figures, fill, span_of

_SLEEP_TASKS, _SLEEP_S, _SLEEP_SLOTS = 5000, 0.05, 100
_BURN_TASKS, _BURN_S = 400, 0.010
_IDEAL_PER_PROCESS = 100
_IDEAL_CODE = """
import time
from benchlib.recorder import burn
begun = time.monotonic()
for _ in range({count}):
    burn()
print(time.monotonic() - begun)
"""


def calibrate_burn() -> int:
    """Return how many steps of `burn` take 10 ms of one processor here."""
    loops, best = 200_000, float("inf")
    for _ in range(5):
        begun = time.process_time()
        burn(loops)
        best = min(best, time.process_time() - begun)
    return int(loops * _BURN_S / best)


def burn_ideal(arena: Arena) -> float:
    """Return the bodies per second of W5 that bare processes reach, one per processor and two at most."""
    processes = min(2, os.cpu_count() or 1)
    words = [sys.executable, "-c", _IDEAL_CODE.format(count=_IDEAL_PER_PROCESS)]
    environment = clean_environment(arena.server.port, None, arena.burn_loops)
    running = [
        subprocess.Popen(words, cwd=OPS, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    return processes * _IDEAL_PER_PROCESS / max(float(process.communicate()[0]) for process in running)


def run_sleep(arena: Arena, peer: Peer, variant: str) -> Figures:
    """Run W4: 5,000 bodies of 50 ms at 100 slots in one process."""
    tasks = min(_SLEEP_TASKS, arena.options.tasks)
    figures = _run(arena, peer, variant, "sleep", tasks, seconds=_SLEEP_S, cap_s=20.0)
    return figures | {"ideal_pct": figures.get("rate", 0.0) * _SLEEP_S / _SLEEP_SLOTS * 100}


def run_burn(arena: Arena, peer: Peer, variant: str) -> Figures:
    """Run W5: 400 bodies of 10 ms of processor time; the ideal is measured just before."""
    ideal = burn_ideal(arena)
    figures = _run(arena, peer, variant, "burn", min(_BURN_TASKS, arena.options.tasks), seconds=None, cap_s=40.0)
    return figures | {"ideal_rate": ideal, "ideal_pct": figures.get("rate", 0.0) / ideal * 100}


def _run(
    arena: Arena, peer: Peer, variant: str, task: str, tasks: int, *, seconds: float | None, cap_s: float
) -> Figures:
    sent, _ = fill(arena, peer, "bulk", tasks, task, seconds)
    with RecordFile() as records:
        with Workers(peer, variant, arena.server.port, records.path) as workers:
            status = records.wait(2 * sent, cap_s, workers.alive)
        events = records.read()
        delivery = records.delivery(sent)
    figures: Figures = {"status": status, **delivery.as_dict()}
    ends = [event.at_ns for event in events if event.kind == FINISHED]
    if ends:
        first_start = min(event.at_ns for event in events)
        figures["rate"] = len(ends) / span_of([first_start, max(ends)])
    return figures
