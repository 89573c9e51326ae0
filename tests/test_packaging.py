"""The wheel: everything that streamwork needs at run time, nothing else, and no dependency that it does not declare.

The wheel is installed alone in a fresh environment beside copies of the distributions that its metadata asks for
(extras left out), taken from the environment that runs the tests: no network, and an undeclared import fails.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# One worker of pytest-xdist builds and installs; the others would only do it again.
pytestmark = pytest.mark.xdist_group("packaging")


def run(*command: str | Path, cwd: Path, within_s: float = 120) -> str:
    """Run a program without this environment's Python settings; its output is the failure's text."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "STREAMWORK_"))}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=within_s, check=False
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def declared(requirements: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """Return the distributions that the requirements pull in here, by name, with those that they pull in."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [(Requirement(text), {""}) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        wanted = frozenset({"", *requirement.extras})
        if (requirement.name, wanted) not in seen:
            seen.add((requirement.name, wanted))
            found[requirement.name] = importlib.metadata.distribution(requirement.name)
            waiting.extend((Requirement(text), set(wanted)) for text in found[requirement.name].requires or [])
    return found


def copy_distribution(distribution: importlib.metadata.Distribution, site: Path) -> None:
    """Copy what a distribution put into site-packages; scripts and the like, which lie outside, stay behind."""
    for file in distribution.files or []:
        source = Path(str(file.locate()))
        if ".." not in file.parts and source.is_file():
            target = site / str(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Return the bin folder of a fresh environment that holds the wheel and what it declares."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    for distribution in declared(PROJECT["dependencies"]).values():
        copy_distribution(distribution, site)
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python"]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=home)
    assert "No broken requirements" in run(*pip, "check", cwd=home)
    return home / "bin"


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    source = {
        str(path.relative_to(ROOT))
        for pattern in ("*.py", "*.lua", "py.typed")
        for path in (ROOT / "streamwork").rglob(pattern)
    }
    assert {name for name in source if name.endswith((".lua", "py.typed"))} > {"streamwork/py.typed"}
    assert source <= set(names)
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"streamwork", f"streamwork-{PROJECT['version']}.dist-info"}
    assert [name for name in names if name.endswith((".pyc", ".rdb", ".aof"))] == []


def test_the_wheel_says_what_it_is(wheel):
    (distribution,) = importlib.metadata.distributions(path=[str(wheel)])
    assert distribution.metadata["Name"] == "streamwork"
    assert distribution.metadata["License-Expression"] == "MIT"
    points = {(point.group, point.name): point.value for point in distribution.entry_points}
    assert points == {
        ("console_scripts", "streamwork"): "streamwork.cli.main:main",
        ("pytest11", "streamwork"): "streamwork.testing.plugin",
    }


def test_a_fresh_environment_imports_it(installed, tmp_path):
    code = (
        "import importlib.metadata, importlib.resources, streamwork\n"
        "scripts = importlib.resources.files('streamwork') / 'store' / 'lua'\n"
        "print(streamwork.__file__, importlib.metadata.version('streamwork'))\n"
        "print(*sorted(f.name for f in scripts.iterdir() if f.name.endswith('.lua')))\n"
    )
    where, scripts = run(installed / "python", "-I", "-c", code, cwd=tmp_path).splitlines()
    assert where.startswith(str(installed.parent))
    assert where.endswith(PROJECT["version"])
    assert scripts.split() == sorted(path.name for path in (ROOT / "streamwork" / "store" / "lua").glob("*.lua"))


@pytest.mark.parametrize("command", [["streamwork"], ["python", "-m", "streamwork"]], ids=["script", "module"])
def test_a_fresh_environment_runs_the_command(installed, tmp_path, command):
    shown = run(installed / command[0], *command[1:], "--help", cwd=tmp_path)
    assert shown.startswith("Usage: ")
    assert "worker" in shown


def test_the_version_is_said_once():
    package = (ROOT / "streamwork" / "__init__.py").read_text(encoding="utf-8")
    assert f'"{PROJECT["version"]}"' in package or "importlib.metadata" in package
