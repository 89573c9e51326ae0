"""Every kind of answer that a script can give is met by the schedules, so that what follows from it is tried."""

from __future__ import annotations

import pytest

from streamwork.store.scripts import ALL_SCRIPTS
from tests.model import schedule, world
from tests.model.answers import EXPECTED, NOT_CALLED, kind_of
from tests.model.patching import patched
from tests.model.scenes import ANSWERS

# Together where they bring the rarer answers; the suite's own schedules have each of them in a third.
_MOODS = (
    ("net", "later", "time"), ("pause", "time", "crash"), ("group", "time"), ("cancel", "retry"), ("keep", "full"),
    ("leave", "net"), ("group", "crash", "retry"), (),
)  # fmt: skip
MOST = 8_000


@pytest.fixture
def met(monkeypatch):
    """What kinds of answers the scripts have given so far."""
    server, kinds = world._SERVER, set()
    execute = server.execute

    def watched(command):
        reply = execute(command)
        if command.script is not None:
            kinds.add(kind_of(command.script.name, reply, server.model[b"is_dirty"]))
        return reply

    monkeypatch.setattr(server, "execute", watched)
    return kinds


def test_every_answer_of_every_script_is_met(met):
    wanted = EXPECTED - set(ANSWERS)
    with patched():
        for seed in range(MOST):
            assert schedule.run_seed(seed, _MOODS[seed % len(_MOODS)]).wrong is None
            if not wanted - met:
                break
    assert not wanted - met, f"never met in {MOST} schedules: {sorted(wanted - met)}"


@pytest.mark.parametrize("answer", ANSWERS, ids=" ".join)
def test_a_scene_brings_the_answer(met, answer):
    with patched():
        assert schedule.replay(*ANSWERS[answer]) is None
    assert answer in met


def test_no_script_is_forgotten():
    assert {script.name for script in ALL_SCRIPTS} == {name for name, _ in EXPECTED} | NOT_CALLED
