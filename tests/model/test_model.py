"""The broker's own code under seeded schedules: no invariant breaks, and in the end everything has come to its end."""

from __future__ import annotations

import pytest

from tests.model import schedule
from tests.model.patching import patched

# 100,000 schedules, twelve times as many as it takes at most to notice that a guard is missing (test_mutations.py, with
# the moods that bring it up); `ops/faults --model` plays other seeds for as long as wanted. In parts, so that they
# spread over the suite's processes.
PARTS = 100
EACH = 1_000


@pytest.mark.parametrize("part", range(PARTS))
def test_invariants_hold_in_every_schedule(part):
    with patched():
        for seed in range(part * EACH, (part + 1) * EACH):
            outcome = schedule.run_seed(seed)
            if outcome.wrong is not None:
                pytest.fail(schedule.told(schedule.shrunk(outcome)), pytrace=False)
