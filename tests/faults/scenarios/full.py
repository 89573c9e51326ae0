"""A Redis without memory or disk to write to: senders are told, work in hand is settled, nothing is lost."""

from __future__ import annotations

import time

from tests.faults import harm, servers
from tests.faults.registry import scenario
from tests.faults.scenarios.redis_down import held_by_both
from tests.system.kit import deaths


@scenario("memory-full", rules=(3, 11, 21), most_duplicated_runs=0)
def memory_full(stage):
    """`maxmemory` is lowered below what is used, for two lives, and raised again: work in hand is settled meanwhile."""
    workers = held_by_both(stage)
    settled = int(stage.redis("HGET", stage.keys.counts, "succeeded"))
    with harm.setting(stage, "maxmemory", int(harm.info(stage, "memory")["used_memory"]) // 2):
        stage.fault("memory full")
        stage.until(lambda: harm.refusals(stage, "OOM"), "a sender is refused")
        stage.open()
        stage.until(lambda: int(stage.redis("HGET", stage.keys.counts, "succeeded")) >= settled + 2, "work is settled")
        time.sleep(2 * stage.scenario.ttl_s)  # the fault itself: beats must do without memory
    stage.prove("requests answered OOM", harm.refusals(stage, "OOM"))
    stage.sent(20)
    assert deaths(*workers) == []


@scenario(
    "disk-full", rules=(11, 12, 14, 23), server_kind="small-disk", needs=servers.why_no_small_disk,
    most_duplicated_runs=0,
)  # fmt: skip
def disk_full(stage):
    """The disk of the AOF is full: Redis answers MISCONF to all that would write, for two lives; then there is room."""
    workers = held_by_both(stage)
    stage.fault("disk full")
    free = stage.server.fill()
    stage.prove("bytes free", free < 65_536 and str(free))
    stage.until(lambda: harm.refusals(stage, "MISCONF"), "somebody is answered MISCONF")
    stage.prove("the last write to the AOF failed", _disk_status(stage) == "err")
    time.sleep(2 * stage.scenario.ttl_s)  # the fault itself
    stage.server.empty()
    stage.until(lambda: _disk_status(stage) == "ok", "it can write again")
    stage.prove("requests answered MISCONF", harm.refusals(stage, "MISCONF"))
    stage.answered()
    stage.sent(20)
    assert deaths(*workers) == []


def _disk_status(stage):
    return harm.info(stage, "persistence")["aof_last_write_status"]
