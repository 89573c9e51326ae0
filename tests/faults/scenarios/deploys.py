"""Workers that come and go on purpose: old and new side by side, and two versions of one app."""

from __future__ import annotations

import signal

from tests.faults.registry import scenario


@scenario("deploy-under-load", rules=(15, 17))
def deploy_under_load(stage):
    """New workers start, old ones get SIGTERM, and SIGKILL after the grace; what they held runs in the new ones."""
    old = stage.worker(drain_timeout_s=30.0)
    stage.load(threads=3)
    for number, is_patient in enumerate(stage.random.sample([True, False], 2)):
        label = f"held-{number}"
        task = stage.random.choice(("held", "held_in_thread"))
        stage.producer.send(task, label=label)
        (begun,) = stage.started(label)
        new = stage.worker(drain_timeout_s=30.0)
        stage.sent(15)
        old.signal(signal.SIGTERM)
        old.until("draining")
        stage.sent(stage.random.randrange(5, 15))
        if is_patient:
            stage.open(label)
            stage.prove("exit status of the one that could end its work", old.wait() == 0 and "0")
        else:
            stage.prove("it still holds its work", old.process.poll() is None)
            stage.kill(old, "worker killed after its grace")
            stage.until(lambda run=begun: _ran_elsewhere(stage, run), "its work is begun in another")
            stage.open(label)
        old = new
    stage.sent(15)


def _ran_elsewhere(stage, begun):
    return [run for run in stage.history.of("started", begun.label) if run.pid != begun.pid]


@scenario("deploy-gives-back", rules=(15, 16))
def deploy_gives_back(stage):
    """At the drain timeout an old worker gives back what still runs, at once and without costing an attempt."""
    old = stage.worker(drain_timeout_s=0.5)
    stage.load()
    task = stage.random.choice(("held", "held_in_thread", "held_in_box"))
    labels = ["held-0", "held-1"]
    for label in labels:
        stage.producer.send(task, label=label)
    for label in labels:
        stage.started(label)
    stage.worker()
    stage.fault("worker asked to end", old)
    old.signal(signal.SIGTERM)
    stage.prove("exit status", old.wait() == 0 and "0")
    for label in labels:
        again = stage.started(label, times=2)[-1]
        assert (again.facts["attempt"], again.facts["crashes"]) == (1, 0)
    stage.sent(10)


@scenario("two-versions", rules=(9,))
def two_versions(stage):
    """Half of the workers lack two tasks: what they cannot run waits for the others, and ends."""
    lacks = stage.random.sample(("quick", "slow", "threaded", "stubborn"), 2)
    old = stage.worker(environ={"STREAMWORK_TEST_LACKS": ",".join(lacks)}, ready=False)
    stage.worker().until("worker ready")
    old.until("worker ready")
    stage.load()
    old.until("task unknown to this worker")
    deferred = lambda: [record.task for record in stage.state().journal if record.state == "deferred"]
    stage.until(lambda: len(deferred()) >= 5, "the older version leaves what it does not know")
    stage.prove("what it left", sorted(set(deferred())))
    assert set(deferred()) <= {f"ledger.{task}" for task in lacks}
    # The deploy goes on. Side by side for ever, what meets the older one again and again waits longer each time.
    old.signal(signal.SIGTERM)
    stage.prove("exit status of the older version", old.wait() == 0 and "0")
    stage.sent(10)
