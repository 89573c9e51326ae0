"""Find the user's app: by name, or in a file of the current folder. What goes wrong is said in one line."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import logging
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from streamwork.app import Streamwork
from streamwork.errors import AppBroken, AppNotFound, StreamworkError

logger = logging.getLogger(__name__)

FILES = ("tasks.py", "app.py", "main.py")
_OR_FILES = "tasks.py, app.py or main.py"
REMEDY = "give --app MODULE:NAME, or set STREAMWORK_APP, or app in [tool.streamwork] of pyproject.toml"

_OURS = str(Path(__file__).resolve().parent.parent)
_PYTHONS = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Target(NamedTuple):
    """A module to import, and what to take from it; an empty name takes its only app."""

    module: str
    name: str = ""


def locate(named: str | None, folder: Path) -> list[Target]:
    """Say where the app would be, without importing anything.

    Args:
        named: ``package.module:name`` or ``package.module``; None looks for a file in the folder.
        folder: Usually the current one.

    Returns:
        Places in the order in which they count.

    Raises:
        AppNotFound: There is none, or the name cannot be one.
        AppBroken: A file that might have held one is not Python.
    """
    if named is None:
        found = [Target(Path(name).stem) for name in FILES if _may_hold_app(folder / name)]
        if not found:
            there = [name for name in FILES if (folder / name).is_file()]
            for name in there:
                _check_syntax(folder / name, folder)
            why = f"{', '.join(there)} in {folder} without a Streamwork" if there else f"no {_OR_FILES} in {folder}"
            raise AppNotFound(f"no app: {why}; {REMEDY}")
        return found
    module, _, name = named.partition(":")
    path, _, _ = module.partition(".py")
    if module.endswith(".py") or "/" in module:
        dotted = path.strip("./").replace("/", ".")
        raise AppNotFound(f"app {named!r} is a file: give the module, as --app {dotted}{':' + name if name else ''}")
    if not all(part.isidentifier() for part in module.split(".")) or (name and not name.isidentifier()):
        raise AppNotFound(f"app {named!r} is not of the form package.module:name")
    return [Target(module, name)]


def _may_hold_app(path: Path) -> bool:
    # A stranger's main.py is not imported just to look: an app is made from the class, or imported by name.
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    return "streamwork" in text.lower() or bool(re.search(r"^\s*(from|import)\b.*\bapp\b", text, re.MULTILINE))


def _check_syntax(path: Path, folder: Path) -> None:
    # A file that nobody can read may well be the one that was meant.
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _broken(path.stem, error, folder) from error
    except (OSError, ValueError):
        return


def load_app(targets: Iterable[Target], folder: Path) -> Streamwork:
    """Import the app; what its module prints goes to standard error.

    Raises:
        AppNotFound: No app there, or more than one to choose from.
        AppBroken: The module raises.
    """
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))
    modules = []
    for target in targets:
        module = _imported(target.module, folder)
        modules.append(module)
        if target.name:
            return _named(module, target)
        apps = apps_in(module)
        if len(apps) > 1:
            choice = " or ".join(f"--app {target.module}:{name}" for name in apps)
            raise AppNotFound(
                f"{_file(module, folder)} has {len(apps)} apps, {', '.join(apps)}: choose one with {choice}"
            )
        if apps:
            return next(iter(apps.values()))
    files = ", ".join(_file(module, folder) for module in modules)
    raise AppNotFound(f"no app: {files} makes no Streamwork; {REMEDY}")


def apps_in(module: ModuleType) -> dict[str, Streamwork]:
    """Return the apps among a module's names; one under several names counts once."""
    found: dict[str, Streamwork] = {}
    for name, value in vars(module).items():
        if isinstance(value, Streamwork) and value not in found.values():
            found[name] = value
    return found


def _named(module: ModuleType, target: Target) -> Streamwork:
    value = getattr(module, target.name, None)
    if isinstance(value, Streamwork):
        return value
    apps = apps_in(module)
    close = difflib.get_close_matches(target.name, apps, 1) or list(apps)[:1]
    hint = f": did you mean {target.module}:{close[0]}?" if close else ", and no other app either"
    what = f"is a {type(value).__name__}, not a Streamwork" if hasattr(module, target.name) else "is not there"
    raise AppNotFound(f"{target.name!r} in {module.__file__ or target.module} {what}{hint}")


def _imported(name: str, folder: Path) -> ModuleType:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name + ".").startswith(error.name + "."):
            raise AppNotFound(f"no module {name!r} in {folder} or among the installed ones; {REMEDY}") from error
        raise _broken(name, error, folder) from error
    except BaseException as error:
        raise _broken(name, error, folder) from error


def _broken(name: str, error: BaseException, folder: Path) -> AppBroken:
    logger.debug("the app cannot be imported", exc_info=error)
    text = f"{error}" if isinstance(error, StreamworkError) else f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SyntaxError) and error.filename:
        place, text = f"{_short(error.filename, folder)}:{error.lineno}", f"{type(error).__name__}: {error.msg}"
    else:
        place = _place(error, folder)
    return AppBroken(
        f"{place}: {text} (app {name!r} cannot be imported; STREAMWORK_LOG_LEVEL=debug shows the traceback)"
    )


def _place(error: BaseException, folder: Path) -> str:
    """Return file:line of the innermost frame that is the user's own."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith(("<", _OURS))]
    users = [frame for frame in outside if not frame.filename.startswith(_PYTHONS)]
    chosen = (users or outside or list(frames))[-1]
    return f"{_short(chosen.filename, folder)}:{chosen.lineno}"


def _short(path: str, folder: Path) -> str:
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def _file(module: ModuleType, folder: Path) -> str:
    return _short(module.__file__ or module.__name__, folder)
