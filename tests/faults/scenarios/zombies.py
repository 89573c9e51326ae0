"""A worker that is frozen past its life and thawed: its words count no more, or count instead of the other's."""

from __future__ import annotations

import os
import signal

from tests.faults.registry import scenario
from tests.faults.stage import process_state


@scenario("zombie-thawed", rules=(11, 13, 14, 20))
def zombie_thawed(stage):
    """SIGSTOP past the life, the work ends elsewhere, SIGCONT: what the zombie writes is refused."""
    zombie, mine = _frozen_with_work(stage)
    stage.open()
    _until_seen(stage, mine)
    os.killpg(zombie.pid, signal.SIGCONT)
    stage.until(lambda: "lease lost" in zombie.text(), "the zombie is told that its lease is lost")
    stage.until(lambda: "fenced" in zombie.text(), "the zombie is told that it is fenced")
    stage.prove("late outcomes of the zombie refused", zombie.text().count("lease lost"))
    stage.sent(10)


@scenario("zombie-races", rules=(13, 20))
def zombie_races(stage):
    """SIGCONT while the work runs elsewhere, and both are let go at one instant: one of the two counts."""
    zombie, mine = _frozen_with_work(stage)
    first, then = stage.random.sample((stage.open, lambda: os.killpg(zombie.pid, signal.SIGCONT)), 2)
    first()
    then()
    both = lambda: all(len(stage.history.of("effect", label)) == 2 for label in mine)
    stage.until(both, "both have worked")
    stage.prove("messages with two effects", len(mine))
    stage.sent(20)


@scenario("zombie-supervisor", rules=(11, 12, 13, 20))
def zombie_supervisor(stage):
    """Only the supervisor is frozen: its process stops reading, its late outcomes are refused, and it begins anew."""
    zombie, peer, mine = _with_work(stage)
    (child,) = zombie.children
    stage.fault("supervisor frozen", zombie)
    zombie.signal(signal.SIGSTOP)
    stage.until(lambda: process_state(zombie.pid) == "T", "it stands still")
    stage.prove("state of the supervisor", process_state(zombie.pid))
    for label in mine:
        stage.started(label, times=2)
    before = len([run for run in stage.history.of("started") if run.pid == child])
    stage.sent(20)
    stage.open(peer.children[0])  # else the first of both counts, and either may be it
    _until_seen(stage, mine)
    stage.open()
    stage.until(lambda: "lease lost" in zombie.text(), "its process is told that its lease is lost")
    stage.prove("late outcomes refused", zombie.text().count("lease lost"))
    assert len([run for run in stage.history.of("started") if run.pid == child]) == before
    zombie.signal(signal.SIGCONT)
    stage.until(lambda: "fenced" in zombie.text(), "it is told that it is fenced")
    after = lambda: [run for run in stage.history.of("started") if run.pid == child]
    stage.until(lambda: len(after()) > before, "it reads again, under another name")


def _with_work(stage):
    """Start a worker and let it hold some messages, start a peer and a load; (worker, peer, labels)."""
    zombie = stage.worker()
    task = stage.random.choice(("held", "held_in_thread"))
    labels = [f"held-{number}" for number in range(4)]
    for label in labels:
        stage.producer.send(task, label=label)
    for label in labels:
        stage.started(label)
    peer = stage.worker()
    stage.load()
    stage.sent(10)
    return zombie, peer, labels


def _frozen_with_work(stage):
    """Freeze one of two workers, and return it with what it holds once all of that runs in the other."""
    zombie, _, mine = _with_work(stage)
    pids = stage.fault("worker frozen", zombie)
    os.killpg(zombie.pid, signal.SIGSTOP)
    stage.until(lambda: {process_state(pid) for pid in pids} <= {"T", ""}, "all of it stands still")
    stage.prove("process states", {pid: process_state(pid) for pid in pids})
    for label in mine:
        stage.started(label, times=2)
    return zombie, mine


def _until_seen(stage, labels):
    stage.until(lambda: {one.label for one in stage.history.of("seen")} >= set(labels), "their ends are seen")
