"""Bodies that harm the process they run in: memory, the interpreter lock, a sudden end, poison."""

from __future__ import annotations

from tests.faults import cgroup
from tests.faults.registry import scenario
from tests.system.kit import deaths

DEADLY = ("deadly", "deadly_in_thread", "deadly_in_box")
LIMIT_MB = 400


@scenario("body-out-of-memory", rules=(17, 19), needs=cgroup.why_not)
def body_out_of_memory(stage):
    """The kernel kills a process for its memory: who took too much once runs again, who always does is quarantined."""
    limits = []
    for worker in stage.pair():
        limit = cgroup.MemoryLimit(LIMIT_MB, worker)
        stage.on_close(limit.close)
        limits.append(limit)
    stage.load(pause_s=0.1)
    times = stage.random.choice((1, 2, 99))
    handle = stage.producer.send("glutton", times, label="glutton", expects="quarantined" if times > 2 else "value")
    wanted = min(times, 3)
    stage.until(lambda: sum(limit.kills for limit in limits) >= wanted, "the kernel kills", 30.0)
    stage.prove("processes that the kernel killed", sum(limit.kills for limit in limits))
    stage.sent(10)
    stage.prove("who was killed", {run.pid for run in stage.started("glutton", times=wanted)})
    if times > 2:
        stage.until(lambda: handle.id in stage.state().dead, "it is quarantined")
        evidence = stage.state().dead[handle.id].failure.message
        assert "signal 9" in evidence, evidence


@scenario("body-holds-interpreter", rules=(11, 12, 19), most_duplicated_runs=0)
def body_holds_interpreter(stage):
    """A body keeps the interpreter lock for three lives: its worker is not taken for dead, nothing runs twice."""
    workers = stage.pair()
    held_s = 3 * stage.scenario.ttl_s
    stage.load(pause_s=0.1)
    task = stage.random.choice(("grip", "grip_in_thread"))
    stage.producer.send(task, held_s, label="grip")
    (run,) = stage.until(lambda: stage.history.of("effect", "grip"), "it lets go")
    stage.prove("seconds in which no other thread of the process ran", run.facts["gap_s"] > 0.95 * held_s and held_s)
    stage.sent(10)
    assert deaths(*workers) == []


@scenario("body-exits", rules=(17, 19))
def body_exits(stage):
    """A body calls `os._exit` or kills its process, once: it runs again, and so does what ran beside it."""
    workers = stage.pair()
    stage.load(pause_s=0.1)
    how = stage.random.choice(("exit", "kill"))
    for task in DEADLY:
        stage.fault(f"{task} will take its process along by {how}")
        stage.producer.send(task, how, 1, label=task)
        first, second = stage.started(task, times=2)[:2]
        assert (second.facts["attempt"], second.facts["crashes"]) == (1, 1)
        assert first.pid != second.pid
    evidence = {"exit": "status 7", "kill": "signal 9 (SIGKILL)"}[how]
    stage.prove(f"seen by a supervisor: {evidence}", any(evidence in worker.text() for worker in workers))
    stage.sent(10)


@scenario("body-poison", rules=(17,))
def body_poison(stage):
    """A message that kills every process it runs in is quarantined after three, and its neighbours are not."""
    worker = stage.worker(slots=10)
    task, how = stage.random.choice(DEADLY[:2]), stage.random.choice(("exit", "kill"))
    neighbours = [f"held-{n}" for n in range(3)]
    for label in neighbours:
        stage.producer.send("held", label=label)
    stage.started(neighbours[-1])
    poison = stage.producer.send(task, how, 99, label="poison", expects="quarantined")
    stage.started("poison", times=2)
    stage.open()  # after two crashes each of them runs alone, and waits for its turn
    stage.until(lambda: poison.id in stage.state().dead, "it is quarantined")
    stage.prove("processes that died", worker.text().count("worker process died"))
    runs = stage.history.of("started", "poison")
    assert [run.facts["crashes"] for run in runs] == [0, 1, 2]
    # Two crashes may have been anybody's. The third was its own: what ran in that process had ended, or came later.
    others = [run for run in stage.history.of("started") if run.pid == runs[-1].pid and run.label != "poison"]
    ended = {run.label: run.at_ns for run in stage.history.of("effect")}
    assert [run.label for run in others if run.at_ns < runs[-1].at_ns < ended.get(run.label, runs[-1].at_ns)] == []
    assert "3 times" in stage.state().dead[poison.id].failure.message
    stage.load()
    stage.sent(20)
