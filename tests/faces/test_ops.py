"""The commands in ops/: what they do to the machine they run on."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.helpers import ROOT


@pytest.fixture
def machine(tmp_path):
    """A machine of a root user where every command that changes it is only written down; runs lines of bash."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    log.touch()

    def run(lines, **answers):
        commands = {**dict.fromkeys(("apt-get", "systemctl", "service"), ""), "id": "echo 0", **answers}
        for name, answer in commands.items():
            path = folder / name
            path.write_text(f'#!/bin/sh\n[ {name} = id ] || echo {name} "$@" >>{log}\n{answer}\n')
            path.chmod(0o755)
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail; me=ops/test; . ops/lib/venv.sh; {lines}"],
            cwd=ROOT, env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        changed = [line for line in log.read_text().splitlines() if not line.startswith("redis-server")]
        return done.returncode, changed

    return run


def test_a_redis_that_is_there_is_neither_upgraded_nor_stopped(machine):
    """It may be older than 6.2, and serve somebody."""
    status, changed = machine("apt_redis", **{"redis-server": "echo 'Redis server v=6.0.16 sha=0'"})
    assert (status, changed) == (1, [])
