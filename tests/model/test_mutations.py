"""The model notices when a guard is missing: each of these, taken out, makes a schedule fail."""

from __future__ import annotations

import pytest

from tests.model import schedule
from tests.model.mutations import MUTATIONS, without
from tests.model.patching import patched
from tests.model.scenes import SCENES

MOST = 8_000


def _first_failure(moods, most):
    with patched():
        for seed in range(most):
            outcome = schedule.run_seed(seed, moods)
            if outcome.wrong is not None:
                return outcome
    return None


@pytest.mark.parametrize("name", [name for name in MUTATIONS if name not in SCENES])
def test_a_missing_guard_is_noticed(name):
    mutation = MUTATIONS[name]
    with without(mutation):
        assert _first_failure(mutation.moods, MOST) is not None


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_shows_the_guard(name):
    with patched():
        assert schedule.replay(*SCENES[name]) is None
    with without(MUTATIONS[name]), patched():
        assert schedule.replay(*SCENES[name]) is not None


def test_a_failing_schedule_is_cut_to_what_it_needs():
    with without(MUTATIONS["sender_numbers"]):
        found = _first_failure(("net",), MOST)
        with patched():
            cut = schedule.shrunk(found)
            assert schedule.replay(cut.shape, cut.actions) == cut.wrong
    assert len(cut.actions) <= 4
    assert ("go", "p1.driver", "lost") in cut.actions or ("go", "p2.driver", "lost") in cut.actions
    assert cut.wrong in schedule.told(cut)


def test_the_same_seed_is_the_same_schedule():
    with patched():
        for seed in range(40):
            one, other = schedule.run_seed(seed), schedule.run_seed(seed)
            assert one == other
