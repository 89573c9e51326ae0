"""Files that hold outcomes which Redis could not take before a worker had to end (rule 24).

Written with fsync at the drain deadline, settled carefully by the next worker start in the same folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from streamwork.errors import DecodeError
from streamwork.ids import random_id
from streamwork.store.scripts import SettleItem

_SUFFIX = ".spool"


class Spooled(NamedTuple):
    """One outcome: its queue, consumer, the server process that delivered it, and what the settle script takes."""

    queue: str
    consumer: str
    server: str
    item: SettleItem


def write(folder: Path, namespace: str, outcomes: list[Spooled]) -> Path:
    """Write outcomes to a new file, durably; raises OSError when the disk refuses, and then no file is left.

    Args:
        folder: The project's streamwork folder; made if needed.
        namespace: The app's.
        outcomes: What could not be settled.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{namespace}-{random_id(64)}{_SUFFIX}"
    draft = path.with_suffix(".draft")
    try:
        with draft.open("wb") as file:
            file.write(msgspec.msgpack.encode([tuple(outcome[:3]) + tuple(outcome.item) for outcome in outcomes]))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return path


def files(folder: Path, namespace: str) -> Iterator[Path]:
    """Yield the spool files of a namespace, oldest first."""
    # "shop" and "shop-eu" may share a folder; the random part of a name has no dash.
    mine = [path for path in folder.glob(f"{namespace}-*{_SUFFIX}") if path.stem.rpartition("-")[0] == namespace]
    yield from sorted(mine, key=_written_at_s)


def _written_at_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # another process has settled it meanwhile


def read(path: Path) -> list[Spooled]:
    """Return the outcomes in a file; raises DecodeError for one that is not ours."""
    try:
        rows: list[list[Any]] = msgspec.msgpack.decode(path.read_bytes())
        return [Spooled(row[0], row[1], row[2], SettleItem._make([*row[3:8], tuple(row[8]), *row[9:]])) for row in rows]
    except (msgspec.MsgspecError, TypeError, IndexError) as error:
        raise DecodeError(f"{path} is not a spool file: {error}") from error
