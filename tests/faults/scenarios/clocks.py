"""A wall clock that is set while everything runs: Redis' own, the workers', or both. Nothing is taken for it.

Not covered: the clock of the machine itself (CLOCK_BOOTTIME and timers go on as they did), and a dead worker whose last
beat was before a step back: its key lives on by the length of the step.
"""

from __future__ import annotations

from tests.faults import servers
from tests.faults.registry import scenario
from tests.faults.scenarios.redis_down import held_by_both
from tests.system.kit import deaths

_OPTIONS = {"server_kind": "clock", "needs": servers.why_no_clock, "most_duplicated_runs": 0}


def _stepped(stage, *steps):
    """Set the clock to these seconds from the true time, one after the other, under load."""
    clock = stage.server.clock
    environ = clock.environ if (is_theirs := stage.random.random() < 0.5) else {}
    workers = held_by_both(stage, environ=environ)
    for seconds in steps:
        before = _redis_s(stage)
        stage.fault(f"clock set to {seconds:+g} s" + " of Redis and workers" * is_theirs)
        clock.step(seconds)
        moved = _redis_s(stage) - before
        stage.prove("seconds that the clock of Redis went by", abs(moved) > 1 and round(moved, 1))
        stage.sent(25)
    assert deaths(*workers) == []


def _redis_s(stage):
    seconds, micros = map(int, stage.redis("TIME"))
    return seconds + micros / 1e6


@scenario("clock-forward", rules=(14, 16, 18, 29), **_OPTIONS)
def clock_forward(stage):
    """The clock is set forward by seconds to hours, and stays: all keys of life lapse at once, and nobody is taken."""
    _stepped(stage, stage.random.choice((3.0, 60.0, 3_600.0, 40_000.0)))


@scenario("clock-back", rules=(14, 16, 29), **_OPTIONS)
def clock_back(stage):
    """The clock is set back by seconds, and what is due waits for it; fences and entry ids still grow."""
    _stepped(stage, -stage.random.uniform(2.0, 5.0))


@scenario("clock-back-and-forward", rules=(14, 16, 18, 29), **_OPTIONS)
def clock_back_and_forward(stage):
    """The clock is set back by an hour or more, and right again a little later."""
    _stepped(stage, -stage.random.choice((3_600.0, 86_400.0)), 0.0)
