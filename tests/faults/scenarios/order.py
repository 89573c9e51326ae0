"""First deliveries begin in the order of their lane, whatever happens to who reads it."""

from __future__ import annotations

import os
import signal

from tests.faults.registry import scenario

SHORT = ((1, "threaded", lambda chance: (chance.uniform(0.001, 0.02),)),)


@scenario("order-kept", rules=(15, 16), is_ordered=True)
def order_kept(stage):
    """The only reader of a lane dies twice with messages that it has not begun: they come before all later ones."""
    worker = stage.worker(slots=6, threads=1)
    stage.load(threads=3, pause_s=0.01, mix=SHORT)
    had = 0
    for _ in range(2):
        stage.sent(stage.random.randrange(30, 60))
        (child,) = worker.children
        os.kill(child, signal.SIGSTOP)  # what it has in hand stays as it is while that is counted
        begun = {run.id for run in stage.history.of("started")}
        sent = {record.facts["entry"]: record.id for record in stage.history.of("acknowledged")}
        pending = [entry for entries in stage.state().pending.values() for entry in entries]
        had += len([entry for entry in pending if sent.get(entry) not in begun])
        stage.fault("worker process killed", child)
        os.kill(child, signal.SIGKILL)
        stage.until(lambda child=child: worker.children and child not in worker.children, "another in its place")
    stage.prove("processes that died", worker.text().count("worker process died"))
    stage.prove("messages that it had read and not begun", had)
    stage.sent(30)
