"""`ops/docs/replay.md` is so: each of its files and commands, in their order, on a real Redis with real workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "ops" / "docs" / "replay.md"
# What does not end with 0, because that is its message: something differs, or is refused.
FAILS = ("--here", "--compare --yes --html", "--set money", "replay orders --compare\n")


def blocks():
    return re.findall(r"^```(python|console)\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def steps(block):
    """Return (command, what is typed into it, the lines that it has to print) of a console block."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], [], []))
        elif line.startswith("(Pdb) "):
            found[-1][1].append(line[6:])
        else:
            found[-1][2].append(line)
    return found


def write(folder, block):
    name, more, _ = re.match(r"# (\w+\.py)(.*)\n()", block).groups()
    path, text = folder / name, block.partition("\n")[2]
    if more:  # one line of what is there already
        old = next(line for line in path.read_text().splitlines() if line.startswith(text.split(" =")[0]))
        text = path.read_text().replace(old, text.strip())
    path.write_text(text)


def run(folder, environ, command, typed):
    done = subprocess.run(
        ["bash", "-ec", f". ./env; {command}; declare -p ID > env 2> /dev/null || true"], cwd=folder, env=environ,
        input="".join(f"{line}\n" for line in typed), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def environ(redis_url, namespace):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMWORK_")}
    return {**kept, "PATH": path, "STREAMWORK_URL": redis_url, "COLUMNS": "200"}


def test_the_story_is_so(tmp_path, environ, namespace):
    (tmp_path / "env").touch()
    count = 0
    for language, block in blocks():
        if language == "python":
            write(tmp_path, block.replace('"shop"', f'"{namespace}"'))
            continue
        for command, typed, lines in steps(block):
            count += 1
            status, text = run(tmp_path, environ, command, typed)
            assert bool(status) == any(part in f"{command}\n" for part in FAILS), (command, text)
            for line in lines:
                pattern = r"[\s\S]*?".join(map(re.escape, line.split("…")))
                assert re.search(pattern, text), (command, line, text)
    assert count > 20
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr data-change=") == 50
    assert "http" not in page.replace("http-equiv", "")
