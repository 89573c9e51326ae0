"""The README's first example runs as it is written, by the commands it names."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import wait_until

README = Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tasks.py").write_text(blocks("python")[0])
    return tmp_path


def test_the_first_example_is_short_and_answers(folder):
    """The example has 15 lines at most, and its result is the one its comment names."""
    example = blocks("python")[0]
    code = [line for line in example.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 15
    expected = re.search(r"print\(.*\)  # (.*)", example)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMWORK_")}
    command = re.search(r"^streamwork (worker .*?)\s+#", blocks("console")[1], re.MULTILINE)
    assert expected
    assert command
    log = folder / "worker.log"
    with log.open("w") as sink:
        worker = subprocess.Popen(
            [sys.executable, "-m", "streamwork", *command[1].split()],
            cwd=folder,
            env=environment,
            stderr=sink,
            stdout=sink,
        )
    try:
        wait_until(lambda: "worker ready" in log.read_text(), "the worker is ready", within_s=30)
        done = subprocess.run(
            [sys.executable, "tasks.py"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.strip() == expected[1], done.stderr
    finally:
        worker.send_signal(signal.SIGTERM)
        status = worker.wait(30)
    assert status == 0


def test_the_two_commands_exist():
    """What the README opens with is there and may be run."""
    for line in blocks("console")[0].splitlines():
        command = README.parent / line.split()[0]
        assert command.is_file()
        assert os.access(command, os.X_OK)
