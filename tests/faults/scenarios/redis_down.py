"""A Redis that dies, stands still, or is busy with somebody else's command; and one that throws its clients out."""

from __future__ import annotations

import time

from tests.faults import harm
from tests.faults.registry import scenario
from tests.system.kit import deaths

# Work goes on so soon after the first answer of a Redis that came back.
RESUME_S = 2.0


def held_by_both(stage, **options):
    """Start two workers that hold a message each, and a load; return the workers."""
    workers = []
    for label in ("held-a", "held-b"):
        workers.append(stage.worker(**options))
        stage.producer.send(stage.random.choice(("held", "held_in_thread")), label=label)
        stage.started(label)
    stage.load(threads=3)
    stage.sent(20)
    return workers


def killed(stage, *, between_fsyncs=False):
    """Kill the Redis and start it again, several times."""
    held_by_both(stage)
    for _ in range(2):
        time.sleep(stage.random.uniform(0.0, 0.3))  # chance: where in the load it falls
        if between_fsyncs:
            harm.until_no_fsync(stage)
        harm.kill_redis(stage)
        time.sleep(stage.random.uniform(0.3, 1.2))  # the fault itself
        harm.restart_redis(stage)
        stage.sent(20)


@scenario("redis-killed", rules=(1, 14, 22, 23), recovery_s=RESUME_S, most_duplicated_runs=0)
def redis_killed(stage):
    """Redis dies by SIGKILL under load and comes back with all it had acknowledged, twice; nobody's work is taken."""
    killed(stage)


@scenario("redis-killed-everysec", rules=(1, 14, 22, 23), server_kind="everysec", recovery_s=RESUME_S)
def redis_killed_everysec(stage):
    """The same with `appendfsync everysec`, which loses nothing to a SIGKILL that does not fall into an fsync."""
    killed(stage, between_fsyncs=True)


@scenario("redis-frozen-5s", rules=(12, 14), recovery_s=RESUME_S, most_duplicated_runs=0)
def redis_frozen_5s(stage):
    """Redis stands still for 5 s, five lives of its workers: nobody is taken for dead."""
    _frozen(stage, 5.0)


@scenario("redis-frozen-2-lives", rules=(12, 14), ttl_s=2.0, recovery_s=RESUME_S, most_duplicated_runs=0)
def redis_frozen_two_lives(stage):
    """Redis stands still for two lives of its workers: nobody is taken for dead."""
    _frozen(stage, 4.0)


def _frozen(stage, seconds):
    workers = held_by_both(stage)
    harm.freeze_redis(stage, seconds)
    stage.sent(20)
    assert deaths(*workers) == []


@scenario("redis-busy", rules=(14, 23), most_duplicated_runs=0)
def redis_busy(stage):
    """Somebody's script keeps Redis busy, and it answers BUSY: who was refused asks again, nobody is taken for dead."""
    workers = held_by_both(stage)
    with harm.setting(stage, "lua-time-limit", 100):
        for _ in range(3):
            harm.busy_redis(stage, stage.random.uniform(0.5, 1.5))
            stage.sent(5)
    stage.prove("requests answered BUSY", harm.refusals(stage, "BUSY"))
    assert deaths(*workers) == []


@scenario("clients-killed", rules=(14, 22, 23, 38), most_duplicated_runs=0)
def clients_killed(stage):
    """CLIENT KILL throws everybody out again and again, under load: nobody is taken for dead."""
    workers = held_by_both(stage)
    stage.fault("clients thrown out")
    thrown = 0
    for _ in range(10):
        thrown += harm.kill_connections(stage)
        time.sleep(stage.random.uniform(0.02, 0.4))  # the fault itself
    stage.prove("connections that were closed", thrown)
    stage.sent(20)
    assert deaths(*workers) == []


@scenario("clients-refused", rules=(12, 14, 23))
def clients_refused(stage):
    """The limit of connections is reached just as all lose theirs: they wait, and come back when there is room."""
    held_by_both(stage)
    lives = stage.random.choice((0.5, 2.0))
    with harm.setting(stage, "maxclients", 1):
        stage.fault("no connections left")
        thrown = harm.kill_connections(stage)
        stage.prove("connections that were closed", thrown)
        time.sleep(lives * stage.scenario.ttl_s)  # the fault itself
    stage.prove("connections that were refused", int(harm.info(stage, "stats")["rejected_connections"]))
    stage.answered()
    stage.sent(20)
