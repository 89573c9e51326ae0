"""The tables beside these tests say what is so: each guard has a row, and each row's tests are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.guards import HOT
from tests.faults.guards_living import LIVING
from tests.faults.guards_sending import SENDING
from tests.faults.unguarded import files_of, patched

HERE = Path(__file__).parent
ROWS = [line for line in (HERE / "README.md").read_text().splitlines() if line.startswith("| ") and "---" not in line]
TESTS = "\n".join(path.read_text() for path in HERE.glob("test_rule_*.py"))
LIVING_TESTS = "\n".join(path.read_text() for path in HERE.glob("living/*.py"))
COVERED = [line for line in (HERE / "README.md").read_text().splitlines() if line.startswith("- Rule ")]


@pytest.mark.parametrize("name", SENDING)
def test_each_guard_has_a_row_and_is_switched_off_by_a_test(name):
    assert any(f"`{name}`" in row for row in ROWS)
    assert f'"{name}"' in TESTS


@pytest.mark.parametrize("name", LIVING)
def test_each_guard_of_the_living_has_a_row_and_is_switched_off_by_a_test(name):
    assert any(re.search(rf"[|;,] *`?{re.escape(name)}`?[ ;,]", row) for row in ROWS) or any(
        name in line for line in COVERED
    )
    assert f'"{name}"' in LIVING_TESTS


def test_what_the_bench_switches_off_are_guards_that_can_be_off_together():
    assert set(HOT) <= {*SENDING, *LIVING}
    for file in files_of(HOT):
        assert patched(file, HOT)


def test_every_test_and_file_that_a_row_names_is_there():
    named = [word for row in ROWS for word in re.findall(r"`(test_\w+)`", row)]
    assert named
    assert [name for name in named if f"def {name}(" not in TESTS] == []
    for row in ROWS:
        file = re.search(r"`(test_rule_\d\d_\w+\.py)`", row)
        assert file is None or (HERE / file[1]).is_file()


def test_every_rule_of_a_guard_has_a_file_of_that_number():
    # 29 is attacked where 25 is: a fence is what a cancel and a settle are refused by.
    files = {int(path.name[10:12]) for path in HERE.glob("test_rule_*.py")}
    assert {guard.rule for guard in SENDING.values()} - files <= {29}
