"""Each scenario with one short seed; `ops/faults` plays them with many."""

from __future__ import annotations

import pytest

from tests.faults.registry import chosen, play


@pytest.mark.parametrize("name", [one.name for one in chosen(())])
def test_a_scenario(name):
    verdict = play(name, seed=1)
    if verdict.status == "skipped":
        pytest.skip(verdict.why[0])
    assert verdict.why == [], verdict.folder
