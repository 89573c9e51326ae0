"""Every test that ops/docs/pains.md names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = [row for row in (ROOT / "ops/docs/pains.md").read_text().splitlines() if re.match(r"\| \d+ \|", row)]
NAMED = sorted({name for row in ROWS for name in re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py(?:::\w+)?)`", row)})


def test_all_of_them_have_a_row_and_what_shows_it_or_that_it_is_not_there_yet():
    assert [int(row.split("|")[1]) for row in ROWS] == list(range(1, 49))
    assert [row for row in ROWS if "test_" not in row and "not yet" not in row and "not tested" not in row] == []


@pytest.mark.parametrize("named", NAMED)
def test_what_is_named_exists(named):
    path, _, name = named.partition("::")
    file = ROOT / path if path.startswith("tests/") else ROOT / "tests/system" / path
    assert f"def {name or 'test_'}" in file.read_text()
