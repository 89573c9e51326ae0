"""Limits while workers and Redis die, freeze, come and go: never too many or too fast, and nothing waits for ever."""

from __future__ import annotations

import os
import signal
import time

from streamwork.store.limiting import BEGIN, SUBMIT
from streamwork.store.scripts import PROMOTE, SETTLE
from tests.faults import harm
from tests.faults.limit_load import LimitedLoad, in_lines, send_burst, send_held
from tests.faults.registry import scenario
from tests.faults.stage import process_state
from tests.system.kit import deaths

REACH_S = 3.0


def loaded(stage, **options):
    """Start two workers, all permits of a limit in their hands, and a load.

    Returns:
        The one that has most of them, the other one, the labels of all that is held, and of what the first one holds.
    """
    workers = stage.pair(slots=20, **options)
    held = send_held(stage)
    pids = {label: stage.started(label)[0].pid for label in held}
    holds = {worker: [label for label in held if pids[label] in worker.children] for worker in workers}
    victim, peer = sorted(workers, key=lambda worker: -len(holds[worker]))
    send_burst(stage)
    load = LimitedLoad(stage.producer, stage.random)
    stage.on_settle(load.stop)
    stage.sent(20)
    stage.prove("messages that wait in a line", in_lines(stage))
    return victim, peer, held, holds[victim]


def let_go(stage, held, again=()):
    """Wait until some of them have begun again, and let all end."""
    for label in again:
        stage.started(label, times=2)
    for label in held:
        stage.open(label)


@scenario("limits-kill-worker", rules=(13, 17, 28), recovery_s=REACH_S)
def limits_kill_worker(stage):
    """A worker that holds permits dies in mid-body, whole or only its process: they go with its work."""
    victim, _, held, its = loaded(stage)
    if stage.random.random() < 0.5:
        stage.kill(victim)
    else:
        (child,) = victim.children
        stage.fault("worker process killed", child)
        os.kill(child, signal.SIGKILL)
        victim.until("worker process died")
        stage.prove("the supervisor has seen it", "signal 9 (SIGKILL)" in victim.text())
    let_go(stage, held, its)
    stage.sent(20)


@scenario("limits-kill-redis", rules=(1, 14, 23, 28), most_duplicated_runs=0)
def limits_kill_redis(stage):
    """Redis dies by SIGKILL and comes back with its AOF: permits, lines and spent tokens are there as they were."""
    _, _, held, _ = loaded(stage)
    harm.kill_redis(stage)
    time.sleep(stage.random.uniform(0.2, 0.8))  # the fault itself
    harm.restart_redis(stage)
    stage.sent(10)
    let_go(stage, held)
    stage.sent(20)


@scenario("limits-deploy", rules=(15, 28))
def limits_deploy(stage):
    """New workers come and old ones go, at once or after their work: what is given back keeps its permits."""
    new = stage.worker(slots=20, ready=False)
    first, second, held, its = loaded(stage, drain_timeout_s=0.3)
    new.until("worker ready")
    # No process is a victim: those that are asked to end have to end their bodies before others begin.
    stage.fault("workers asked to end")
    for old in (first, second):
        old.signal(signal.SIGTERM)
        stage.prove("exit status", old.wait() == 0 and "0")
    let_go(stage, held, its)
    stage.sent(20)


@scenario("limits-zombie", rules=(13, 20, 28))
def limits_zombie(stage):
    """A worker that holds permits freezes past its life, and thaws: its late ends free nobody's."""
    zombie, peer, held, its = loaded(stage)
    pids = stage.fault("worker frozen", zombie)
    os.killpg(zombie.pid, signal.SIGSTOP)
    stage.until(lambda: {process_state(pid) for pid in pids} <= {"T", ""}, "all of it stands still")
    stage.prove("process states", {pid: process_state(pid) for pid in pids})
    for label in its:
        stage.started(label, times=2)
    if stage.random.random() < 0.5:
        stage.open(peer.children[0])
        ended = lambda: {one.label for one in stage.history.of("seen")} >= set(held)
        stage.until(ended, "they have ended elsewhere, and others have their permits")
    os.killpg(zombie.pid, signal.SIGCONT)
    stage.until(lambda: "fenced" in zombie.text(), "the zombie is told that it is fenced")
    let_go(stage, held)
    late = lambda: sum(worker.text().count("lease lost") for worker in (zombie, peer))
    stage.until(late, "one of both is told that its lease is lost")
    stage.prove("ends that came too late", late())
    stage.sent(20)


@scenario("limits-replies-lost", rules=(1, 23, 28), most_duplicated_runs=0)
def limits_replies_lost(stage):
    """Answers to what sends, begins, promotes and ends messages are lost: nothing is held for good or given twice."""
    proxy = harm.toxic(stage)
    first, second, held, _ = loaded(stage)
    nth = sorted(stage.random.sample(range(1, 41), 8))
    stage.fault(f"replies {nth} to scripts of limits will be lost")
    proxy.lose_reply(harm.sends(SUBMIT, BEGIN, PROMOTE, SETTLE), *nth)
    stage.until(lambda: proxy.dropped == len(nth), "the replies are lost", 30.0)
    stage.prove("replies that were lost", proxy.dropped)
    let_go(stage, held)
    stage.sent(10)
    assert deaths(first, second) == []
