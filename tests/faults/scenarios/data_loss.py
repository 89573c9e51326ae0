"""Data that is destroyed under load: what was in it is gone, and told; the rest goes on, and new work runs."""

from __future__ import annotations

from tests.faults import harm
from tests.faults.registry import scenario
from tests.faults.scenarios.redis_down import held_by_both

LANE = "1:"


@scenario("flush-all", rules=(1, 8, 11))
def flush_all(stage):
    """FLUSHALL under load: what was there is lost by it, workers register anew, new work runs and old waits end."""
    workers = held_by_both(stage)
    harm.flush(stage)
    stage.until(lambda: len(stage.state().consumers) >= 2, "both have registered again")
    stage.prove("workers that were told that they are fenced", sum("fenced" in worker.text() for worker in workers))
    stage.open()
    stage.sent(30)


@scenario("lane-deleted", rules=(8, 20, 33))
def lane_deleted(stage):
    """DEL of a lane under load: what was on it is lost by it, the rest and all that is new runs."""
    workers = held_by_both(stage)
    for _ in range(2):
        harm.delete_lane(stage, LANE)
        stage.sent(20)
    _until_told(stage, workers, "a lane was deleted")


@scenario("group-destroyed", rules=(8, 20, 22))
def group_destroyed(stage):
    """XGROUP DESTROY under load: nothing is lost, and nothing that has ended is committed again."""
    workers = held_by_both(stage)
    for _ in range(2):
        stage.fault("group destroyed")
        gone = stage.redis("XGROUP", "DESTROY", stage.keys.lane(LANE), "workers")
        stage.prove("groups destroyed", gone)
        stage.sent(20)
    _until_told(stage, workers, "no task message is lost")


def _until_told(stage, workers, text):
    stage.until(lambda: any(text in worker.text() for worker in workers), "it is said aloud")
    stage.prove("it was said aloud", text)
