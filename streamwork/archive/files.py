"""Open history files, to write or to read; a file has its name only once it is whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from streamwork.archive.form import Archive, Header, Writer
from streamwork.archive.jsonl import JsonLines, read_json_lines
from streamwork.archive.parquet import Parquet, read_parquet
from streamwork.errors import ConfigError

Format = Literal["jsonl", "parquet"]


def create(path: Path | None, kind: Format, header: Header) -> Writer:
    """Begin a history file.

    Args:
        path: Where it goes; None = standard output, which takes JSON lines only.
        kind: ``jsonl`` or ``parquet``.
        header: What it says of itself.

    Raises:
        ConfigError: Parquet on standard output, or without pyarrow.
        OSError: It cannot be written.
    """
    if path is None:
        if kind == "parquet":
            raise ConfigError("Parquet goes to a file: give --output FILE")
        return JsonLines(sys.stdout.buffer, header)
    draft = path.with_name(f"{path.name}.draft")
    if kind == "parquet":
        return Parquet(draft, path, header)
    return JsonLines(draft.open("wb"), header, path)


def read(path: Path) -> Archive:
    """Open a history file of either format, told by what is in it.

    Raises:
        HistoryFileError: It is none, or one of another version; going through it tells of one that is cut short.
        ConfigError: It is Parquet, and pyarrow is not installed.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    return read_parquet(path) if is_parquet else read_json_lines(path)
