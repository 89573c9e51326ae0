"""A guard is proven by its scenario: it holds with the guard, and breaks without it, for the reason it names."""

from __future__ import annotations

import pytest

from tests.faults.guards import GUARDS
from tests.faults.unguarded import scripts_without


def must_fail(without, match, scenario, /, *args, **options):
    """Run a scenario with scripts that lack these guards; it must say that its promise is broken.

    A scenario names its promises as messages of its asserts, so that a crash of the test is never taken for a proof.

    Args:
        without: One guard's name, or several.
        match: What the broken promise is called.
        scenario: Called with what follows.
    """
    names = [without] if isinstance(without, str) else without
    assert set(names) <= set(GUARDS)
    with scripts_without(*names), pytest.raises(AssertionError, match=match):
        scenario(*args, **options)
