"""A worker that is killed at a chosen point of a delivery's life, whole or in part."""

from __future__ import annotations

from tests.faults.registry import scenario


@scenario("kill-mid-body", rules=(11, 13, 15, 16, 17), recovery_s=3.0)
def kill_mid_body(stage):
    """The whole worker dies while bodies of every kind run."""
    victim = crowd(stage, "held", "held_in_thread", "held_in_box")
    stage.kill(victim)
    stage.sent(30)


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
