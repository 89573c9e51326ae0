"""A worker that is killed at a chosen point of a delivery's life, whole or in part."""

from __future__ import annotations

import os
import signal
import time

from streamwork.store.scripts import SETTLE
from tests.faults.registry import scenario
from tests.faults.stage import process_state
from tests.proxy import DropReplyProxy, is_script
from tests.system.kit import is_gone

# With a life of 1 s: the reach. At defaults P4 promises 10 s.
REACH_S, PROMISE_S = 3.0, 10.0


@scenario("kill-before-run", rules=(13, 15, 16, 17), recovery_s=REACH_S)
def kill_before_run(stage):
    """The whole worker dies with messages that it has read and not begun."""
    victim = stage.worker(slots=6, threads=1)
    handles = stage.producer.send_many("held_in_thread", [f"held-{n}" for n in range(6)])
    stage.until(lambda: stage.state().in_flight == 6, "all six are read")
    stage.worker()
    stage.load()
    stage.sent(10)
    begun = {run.id for run in stage.history.of("started")}
    waiting = [handle.id for handle in handles if handle.id not in begun]
    stage.prove("messages read and not begun", len(waiting))
    stage.kill(victim, ids=waiting)
    stage.open()
    stage.sent(20)


@scenario("kill-mid-body", rules=(11, 13, 15, 16, 17), recovery_s=REACH_S)
def kill_mid_body(stage):
    """The whole worker dies while bodies run on its loop and in its threads."""
    victim = crowd(stage, "held", "held_in_thread")
    stage.kill(victim)
    stage.sent(30)


@scenario("kill-mid-body-in-box", rules=(11, 13, 15, 16, 17), recovery_s=REACH_S)
def kill_mid_body_in_box(stage):
    """The whole worker dies while bodies run in killable processes; elsewhere such processes wait for work."""
    victim = crowd(stage, "held_in_box")
    stage.kill(victim)
    stage.sent(30)


@scenario("kill-at-defaults", rules=(11, 13, 15, 16, 17), ttl_s=5.0, recovery_s=PROMISE_S, promise_s=PROMISE_S)
def kill_at_defaults(stage):
    """The whole worker dies in mid-body, with the default liveness of 5 s."""
    victim = crowd(stage, "held", "held_in_thread")
    stage.kill(victim)
    for label in ("held-a", "held_in_thread-b"):
        stage.started(label, times=2)


@scenario("kill-after-effect", rules=(13, 15, 16, 20), recovery_s=REACH_S)
def kill_after_effect(stage):
    """The whole worker dies after a body's effect, as its settle leaves the process: Redis never hears of it."""
    proxy, victim, task_id = _at_the_proxy(stage)

    def is_the_one(request):
        if not is_script(SETTLE)(request) or not _names(request, task_id):
            return False
        stage.fault("worker killed as it sends its settle", victim)
        os.killpg(victim.pid, signal.SIGKILL)
        return True

    proxy.lose_request(is_the_one, 1)
    stage.open("the-one")
    stage.until(lambda: proxy.dropped, "the settle is lost, and its sender")
    stage.prove("the settle was cut off before Redis", proxy.dropped == 1)
    stage.prove("the effect is written", len(stage.history.of("effect", "the-one")) == 1)
    victim.process.wait(10)
    stage.prove("the supervisor ended by SIGKILL", victim.process.returncode == -signal.SIGKILL)
    again = stage.started("the-one", times=2)
    assert [run.facts["attempt"] for run in again] == [1, 1]  # a crash costs no attempt
    stage.sent(10)


@scenario("kill-after-settle", rules=(13, 15, 20, 23), recovery_s=REACH_S)
def kill_after_settle(stage):
    """The whole worker dies after Redis has its settle and before the reply: the message runs no second time."""
    proxy, victim, task_id = _at_the_proxy(stage)

    def is_the_one(request):
        if not is_script(SETTLE)(request) or not _names(request, task_id):
            return False
        os.killpg(victim.pid, signal.SIGSTOP)  # it cannot resend between the lost reply and its death
        return True

    proxy.lose_reply(is_the_one, 1)
    stage.open("the-one")
    stage.until(lambda: proxy.dropped, "the reply is lost")
    stage.prove("the reply was cut off", proxy.dropped == 1)
    (sender,) = victim.children
    stage.until(lambda: process_state(sender) == "T", "its sender stands still")
    stage.prove("state of its sender", process_state(sender))
    stage.prove("Redis has the settle", task_id in [record.id for record in stage.state().journal])
    stage.kill(victim, "worker killed before the reply of its settle")
    stage.until(lambda: "dead consumer taken" in stage.workers[1].text(), "the dead one is taken")
    stage.sent(20)
    assert len(stage.history.of("started", "the-one")) == 1


def _at_the_proxy(stage):
    """Start a worker behind a proxy that holds one message, a peer, and a load; (proxy, worker, task id)."""
    proxy = DropReplyProxy(stage.server.socket_path)
    stage.on_close(proxy.close)
    victim = stage.worker(url=proxy.url)
    task = stage.random.choice(("held", "held_in_thread"))
    handle = stage.producer.send(task, label="the-one")
    stage.started("the-one")
    stage.worker()
    stage.load()
    stage.sent(10)
    return proxy, victim, handle.id


def _names(request, task_id):
    return any(task_id.encode() in part for part in request)


@scenario("kill-supervisor", rules=(13, 15, 19), recovery_s=REACH_S)
def kill_supervisor(stage):
    """Only the supervisor dies: its processes go with it, and a peer goes on."""
    victim = crowd(stage, "held", "held_in_thread")
    pids = stage.fault("supervisor killed", victim)
    os.kill(victim.pid, signal.SIGKILL)
    victim.process.wait()
    stage.prove("the supervisor ended by SIGKILL", victim.process.returncode == -signal.SIGKILL)
    stage.until(lambda: all(map(is_gone, pids)), "its processes are gone")
    stage.prove("processes that went with it", len(pids) - 1)
    stage.sent(30)


@scenario("kill-child", rules=(17, 19), recovery_s=REACH_S)
def kill_child(stage):
    """Only the worker process dies: its supervisor hands its work over and starts another."""
    victim = crowd(stage, "held", "held_in_thread", processes=stage.random.choice((1, 2)))
    child = stage.history.of("started", "held-a")[0].pid
    stage.fault("worker process killed", child)
    os.kill(child, signal.SIGKILL)
    victim.until("worker process died")
    stage.prove("the supervisor has seen it", "signal 9 (SIGKILL)" in victim.text())
    stage.prove("the supervisor lives", victim.process.poll() is None)
    stage.until(lambda: victim.children and child not in victim.children, "another process in its place")
    stage.sent(30)


@scenario("kill-both", rules=(13, 15, 17, 19), recovery_s=REACH_S)
def kill_both(stage):
    """The worker process dies, and its supervisor within the milliseconds in which it hands the work over."""
    victim = crowd(stage, "held", "held_in_thread")
    (child,) = victim.children
    pids = stage.fault("worker process killed, then its supervisor", victim)
    os.kill(child, signal.SIGKILL)
    pause_s = stage.random.choice((0.0, 0.001, 0.003, 0.01, 0.03))
    time.sleep(pause_s)  # the fault itself
    os.kill(victim.pid, signal.SIGKILL)
    victim.process.wait()
    stage.prove("the supervisor ended by SIGKILL", victim.process.returncode == -signal.SIGKILL)
    stage.until(lambda: all(map(is_gone, pids)), "its processes are gone")
    stage.prove(f"both gone, {pause_s:g} s apart", len(pids))
    stage.sent(30)


@scenario("kill-in-turn", rules=(11, 13, 15, 16, 17, 19))
def kill_in_turn(stage):
    """One worker after the other dies under load, whole or only its supervisor, each with another in its place."""
    workers = stage.pair()
    stage.load(threads=3)
    for _ in range(3):
        stage.sent(20)
        victim = workers.pop(stage.random.randrange(2))
        stage.fault("worker killed", victim)
        if stage.random.random() < 0.5:
            victim.kill()
        else:
            os.kill(victim.pid, signal.SIGKILL)
            victim.process.wait()
        stage.prove("a supervisor ended by SIGKILL", victim.process.returncode == -signal.SIGKILL)
        workers.append(stage.worker())
    stage.sent(20)


def crowd(stage, *tasks, **options):
    """Start a worker, let it begin two of each task, then start a peer and a load beside it; return the worker."""
    victim = stage.worker(**options)
    labels = [f"{task}-{number}" for number in "ab" for task in tasks]
    for label in labels:
        stage.producer.send(label[:-2], label=label)
    for label in labels:
        stage.started(label)
    stage.worker()
    stage.load()
    return victim
