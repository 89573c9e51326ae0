"""Switch guards of the protocol off, in tests only: a guard is a place in the source, and off is another text there.

In this process `scripts_without` does so for Lua, and `module_without` for a copy of a Python module. A daemon runs
without its guards by ``python -m tests.faults.unguarded gate,grace worker …``; what it forks has none either.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from pathlib import Path

from tests.faults.guards import GUARDS

ROOT = Path(__file__).resolve().parents[2]
_CACHED = ("source", "sha")


def files_of(names):
    """Return the files in which these guards stand."""
    return {change.file for name in names for change in GUARDS[name].changes}


def patched(path, names):
    """Return the text of a file of this project with these guards off; guards of other files change nothing."""
    text = (ROOT / path).read_text()
    for name in names:
        for change in GUARDS[name].changes:
            if change.file == path:
                assert text.count(change.on) == 1, f"guard {name}: not once in {path}: {change.on!r}"
                text = text.replace(change.on, change.off)
    return text


def _path(name):
    return f"streamwork/store/lua/{name}.lua"


def _cut_scripts(names):
    from streamwork.store.commands import blocks_of, compose
    from streamwork.store.scripts import ALL_SCRIPTS

    wanted = files_of(names)
    for script in ALL_SCRIPTS:
        blocks = blocks_of((ROOT / _path(script.name)).read_text())
        parts = {script.name}.union(*blocks)
        if not wanted.isdisjoint(map(_path, parts)):
            text = compose(script.name, lambda name: patched(_path(name), names))
            script.__dict__["source"] = text.encode()
            script.__dict__.pop("sha", None)  # is made from the source when it is asked for
    return ALL_SCRIPTS


@contextlib.contextmanager
def scripts_without(*names):
    """Run what is inside with scripts that lack these guards; connect within it: drivers load scripts when they do."""
    scripts = _cut_scripts(names)
    try:
        yield
    finally:
        for script in scripts:
            for attribute in _CACHED:
                script.__dict__.pop(attribute, None)


def module_without(module, *names):
    """Return a copy of a Python module (dotted name) whose source lacks these guards; the real one stays as it is."""
    real = importlib.import_module(module)
    path = str(Path(real.__file__).relative_to(ROOT))
    assert path in files_of(names), f"{names} change nothing in {path}"
    copy = types.ModuleType(module)
    copy.__file__, copy.__package__ = real.__file__, real.__package__
    sys.modules[module] = copy  # dataclasses and the like look their module up by name
    try:
        exec(compile(patched(path, names), real.__file__, "exec"), copy.__dict__)
    finally:
        sys.modules[module] = real
    return copy


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules whose guards are off."""

    def __init__(self, names):
        self._names = names
        self._files = files_of(names)

    def find_spec(self, fullname, path=None, target=None):
        """Answer for those only."""
        file = fullname.replace(".", "/") + ".py"
        if file not in self._files:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(file, self._names), origin=str(ROOT / file))


class _Loader(importlib.abc.SourceLoader):
    """Loads a module from its text without guards."""

    def __init__(self, file, names):
        self._file = file
        self._names = names

    def get_filename(self, fullname):
        """Where the whole text is."""
        return str(ROOT / self._file)

    def get_data(self, path):
        """Return the text without guards."""
        return patched(self._file, self._names).encode()

    def path_stats(self, path):
        """Refuse bytecode, which is that of the whole text."""
        raise OSError("no bytecode")


def main():
    """Run ``streamwork`` without the guards that the first argument names; the rest is its own."""
    names = sys.argv[1].split(",")
    assert not any(module.partition(".")[0] == "streamwork" for module in sys.modules), "imported too early"
    sys.meta_path.insert(0, _Finder(names))
    _cut_scripts(names)
    sys.argv = ["streamwork", *sys.argv[2:]]
    importlib.import_module("streamwork.cli.main").main()


if __name__ == "__main__":
    main()
