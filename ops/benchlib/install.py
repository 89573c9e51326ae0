"""Virtual environments of the peers, one each, and npm's folder for those that run on node."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchlib.catalog import CATALOG, PeerSpec
from benchlib.peer import npm_folder, venv_folder
from benchlib.settings import CHECKOUT, BenchError, logs, say

RAW = PeerSpec(
    module="",
    venv="raw",
    packages=CATALOG["bullmq"].packages,
    versions=("redis", "hiredis", "msgspec"),
    variants={},
    plan={},
)
"""What the raw loops and the bare machinery of `--floor` need."""


def ensure(name: str, spec: PeerSpec, *, upgrade: bool) -> None:
    """Make the peer's environment if it is missing; with `upgrade`, move it to the newest releases.

    Raises:
        BenchError: pip or npm is missing or failed.
    """
    requirements = _requirements(spec)
    folder = venv_folder(spec.venv)
    wanted = _fingerprint(requirements)
    receipt = folder / "installed.txt"
    if upgrade or not receipt.exists() or receipt.read_text() != wanted:
        say(f"installing {name}: {' '.join(spec.packages) or 'this checkout'}")
        if not (folder / "bin" / "python").exists():
            _run([sys.executable, "-m", "venv", str(folder)], f"{name}-install.log")
        python = str(folder / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
        _run([*pip, *requirements], f"{name}-install.log")
        receipt.write_text(wanted)
    if spec.npm and (upgrade or not (npm_folder() / "node_modules" / spec.npm[0]).is_dir()):
        _npm_install(name, spec)


def _requirements(spec: PeerSpec) -> list[str]:
    # Editable: what is measured is the checkout as it stands, without an installation per edit.
    return list(spec.packages) or ["--editable", f"{CHECKOUT}[otlp]"]


def _fingerprint(requirements: list[str]) -> str:
    text = "\n".join(requirements) + "\n"
    if requirements[0] == "--editable":
        manifest = CHECKOUT / "pyproject.toml"
        if not manifest.exists():
            raise BenchError("streamwork has no pyproject.toml yet: nothing to install")
        text += manifest.read_text()
    return text


def _npm_install(name: str, spec: PeerSpec) -> None:
    if shutil.which("npm") is None:
        raise BenchError(f"{name} runs on node and there is no npm: install node, or leave {name} out of --peers")
    say(f"installing {name} with npm: {' '.join(spec.npm)}")
    npm_folder().mkdir(exist_ok=True)
    latest = [f"{package}@latest" for package in spec.npm]
    quiet = ["--silent", "--no-audit", "--no-fund"]
    _run(["npm", "install", *quiet, "--prefix", str(npm_folder()), *latest], f"{name}-install.log")


def _run(words: list[str], log_name: str) -> None:
    log: Path = logs() / log_name
    with log.open("ab") as output:
        finished = subprocess.run(words, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    if finished.returncode:
        raise BenchError(f"{Path(words[0]).name} failed with status {finished.returncode}: see {log}")
