"""What a history file holds, whatever its format: a header with a version, attempts and gaps, and a sign of its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from streamwork.errors import HistoryFileError
from streamwork.model.history import HistoryGap, HistoryRecord

# Grows when a reader of the older one would misread a file; new fields with defaults do not change it.
VERSION = 1

One = HistoryRecord | HistoryGap


class Header(msgspec.Struct, frozen=True):
    """Where the records of a file come from.

    Attributes:
        streamwork_history: Version of the file.
        namespace, queue: Whose history it is.
        exported_at_ms: When it was written, ms since 1970.
        asked: What was asked for, as it was said; empty = all.
    """

    streamwork_history: int
    namespace: str
    queue: str
    exported_at_ms: int
    asked: dict[str, str] = {}


class Archive(NamedTuple):
    """An opened file: its header, and what it holds, read while one goes through it.

    Going through it raises HistoryFileError where the file is cut short or garbled.
    """

    header: Header
    found: Iterator[One]


class Writer(Protocol):
    """What an export writes to."""

    def write(self, one: One) -> None:
        """Add one record or gap."""
        ...

    def finish(self) -> None:
        """Say that this is all, and close."""
        ...

    def give_up(self) -> None:
        """Close and leave no file behind."""
        ...


def checked(header: Header, path: Path) -> Header:
    """Return a header of this version; raises HistoryFileError for another one."""
    version = header.streamwork_history
    if version != VERSION:
        remedy = "upgrade streamwork" if version > VERSION else "import it with the streamwork that wrote it"
        raise HistoryFileError(
            f"{path}: a history file of version {version}, and this reads version {VERSION}: {remedy}"
        )
    return header


def cut_short(path: Path, count: int) -> HistoryFileError:
    """Return the error for a file that ends too early."""
    return HistoryFileError(f"{path}: it is cut short after {count:,} records, so the export or a copy was broken off")
