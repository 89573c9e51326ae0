"""The table of guards is true: each stands in the source once, and goes."""

from __future__ import annotations

import pytest

from tests.faults.guards import GUARDS
from tests.faults.unguarded import ROOT, patched


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_stands_where_the_table_says(name):
    for change in GUARDS[name].changes:
        text = patched(change.file, [name])
        assert text != (ROOT / change.file).read_text()
        if change.file.endswith(".py"):
            compile(text, change.file, "exec")
