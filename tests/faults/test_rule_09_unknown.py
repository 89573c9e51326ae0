"""Rule 9: a task that this worker does not know is left for one that does, patiently and not for ever."""

from __future__ import annotations

import pytest

from streamwork.wire.message import Attempt
from streamwork.worker import endings, runner
from tests.faults.proof import must_fail
from tests.faults.unguarded import module_without
from tests.runtime.kit import Bench

ENDINGS, RUNNER = "streamwork.worker.endings", "streamwork.worker.runner"
DAY_S = 86_400


def steps(module, bench):
    """Return a bench whose steps, or whose ways to write an end down, are this module's."""
    take = lambda run, item: bench.settled.append((run, item))
    if module.__name__ == RUNNER:
        bench.runner = module.Runner(bench.app.tasks, bench.table, take)
    else:
        bench.runner.endings = module.Endings(take, lambda: bench.runner.now_ms())  # noqa: PLW0108 - set later
    return bench


def rounds(module, most=1_500):
    """Let a message that nobody knows go round, on a clock that the rounds move; return its ends with their waits."""
    bench, now_ms, ends, attempt = steps(module, Bench()), 1_000_000, [], Attempt()
    bench.runner.now_ms = lambda: now_ms
    while len(ends) < most:
        run = bench.delivery("elsewhere", 1, attempt=attempt)
        assert bench.runner.decode(run)
        assert not bench.runner.admit(run)
        end = bench.end_of(run)
        bench.settled.clear()
        ends.append((end, (end.run_at_ms - now_ms) / 1000 if end.op[0] == "R" else 0.0))
        if end.op[0] != "R":
            break
        now_ms, attempt = end.run_at_ms, end.attempt
    bench.table.close()
    return ends


def left(module):
    end, _ = rounds(module, 1)[0]
    assert (end.op[0], end.state) == ("R", "deferred"), "ended, though another worker may know it"
    assert end.value.task == "elsewhere"


def patient(module):
    waits = [wait_s for _, wait_s in rounds(module, 9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60], "it goes round and round without a pause"


def free_of_charge(module):
    assert {end.attempt.attempt for end, _ in rounds(module, 9)} == {1}, "waiting for another worker cost an attempt"


def mortal(module):
    ends = rounds(module)
    assert ends[-1][0].op[0] == "D", "it waits for ever"
    assert ends[-1][0].letter.reason == "unknown_task"
    waited_s = sum(wait_s for _, wait_s in ends)
    assert DAY_S <= waited_s < DAY_S + 60


SCENARIOS = {
    "unknown_left": (RUNNER, left, "another worker may know it"),
    "unknown_backoff": (ENDINGS, patient, "without a pause"),
    "unknown_counted_apart": (ENDINGS, free_of_charge, "cost an attempt"),
    "unknown_ttl": (ENDINGS, mortal, "it waits for ever"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_unknown_task_waits_for_who_knows_it(name):
    where, scenario, _ = SCENARIOS[name]
    scenario({RUNNER: runner, ENDINGS: endings}[where])


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_the_guard_it_does_not(name):
    where, scenario, match = SCENARIOS[name]
    must_fail(name, match, scenario, module_without(where, name))
