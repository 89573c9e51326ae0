"""A worker that is frozen past its life and thawed: its words count no more."""

from __future__ import annotations

import os
import signal

from tests.faults.registry import scenario
from tests.faults.stage import process_state


@scenario("zombie-thawed", rules=(11, 13, 14, 20))
def zombie_thawed(stage):
    """SIGSTOP past the life, the work ends elsewhere, SIGCONT: what the zombie writes is refused."""
    zombie, _ = stage.pair()
    task = stage.random.choice(("held", "held_in_thread"))
    labels = [f"held-{number}" for number in range(8)]
    for label in labels:
        stage.producer.send(task, label=label)
    held = [run for label in labels for run in stage.started(label)]
    stage.load()
    stage.sent(10)
    frozen = freeze(stage, zombie)
    mine = [run.label for run in held if run.pid in frozen]
    stage.prove("messages that it holds", mine)
    for label in mine:
        stage.started(label, times=2)
    stage.open()
    stage.until(lambda: {one.label for one in stage.history.of("seen")} >= set(mine), "their ends elsewhere")
    os.killpg(zombie.pid, signal.SIGCONT)
    stage.until(lambda: "lease lost" in zombie.text(), "the zombie is told that its lease is lost")
    stage.until(lambda: "fenced" in zombie.text(), "the zombie is told that it is fenced")
    stage.prove("late outcomes of the zombie refused", zombie.text().count("lease lost"))
    stage.sent(10)


def freeze(stage, worker):
    """SIGSTOP a worker with all its processes, prove it, and return their pids."""
    pids = stage.fault("worker frozen", worker)
    os.killpg(worker.pid, signal.SIGSTOP)
    stage.until(lambda: {process_state(pid) for pid in pids} <= {"T", ""}, "all of it stands still")
    stage.prove("process states", {pid: process_state(pid) for pid in pids})
    return pids
