"""The public types, as checkers see them: api_ok.py passes, in api_wrong.py exactly the marked lines are refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OK, WRONG = HERE / "api_ok.py", HERE / "api_wrong.py"


def marked():
    """Return the lines that must be refused."""
    return {number for number, line in enumerate(WRONG.read_text().splitlines(), 1) if line.endswith("# wrong")}


def run_tool(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=environment)


@pytest.fixture(scope="module")
def mypy_lines():
    """Lines with an error, by file."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    done = run_tool(sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--no-error-summary", str(OK), str(WRONG))
    found = re.findall(r"^(\S+?):(\d+): error: .*$", done.stdout, re.MULTILINE)
    assert found or not done.stderr, done.stderr
    lines = {path: {int(line) for file, line in found if Path(file).name == path.name} for path in (OK, WRONG)}
    return lines, done.stdout


@pytest.fixture(scope="module")
def pyright_lines():
    """Lines with an error, by file; skipped where pyright cannot run."""
    pytest.importorskip("pyright", reason="pyright is not installed")
    options = ["--pythonpath", sys.executable, "--outputjson"]
    try:
        done = run_tool(sys.executable, "-m", "pyright", *options, str(OK), str(WRONG))
        report = json.loads(done.stdout)
    except (subprocess.SubprocessError, json.JSONDecodeError) as error:
        pytest.skip(f"pyright does not run here, it needs node and its npm package: {error}")
    errors = [item for item in report["generalDiagnostics"] if item["severity"] == "error"]
    found = [(Path(item["file"]), item["range"]["start"]["line"] + 1, item["message"]) for item in errors]
    lines = {path: {line for file, line, _ in found if file == path} for path in (OK, WRONG)}
    return lines, "\n".join(f"{file.name}:{line}: {message}" for file, line, message in found)


def test_there_is_something_to_refuse():
    assert len(marked()) > 20


def test_mypy_accepts_what_is_right(mypy_lines):
    lines, text = mypy_lines
    assert lines[OK] == set(), text


def test_mypy_refuses_exactly_what_is_wrong(mypy_lines):
    lines, text = mypy_lines
    assert lines[WRONG] == marked(), text


def test_pyright_accepts_what_is_right(pyright_lines):
    lines, text = pyright_lines
    assert lines[OK] == set(), text


def test_pyright_refuses_exactly_what_is_wrong(pyright_lines):
    lines, text = pyright_lines
    assert lines[WRONG] == marked(), text
