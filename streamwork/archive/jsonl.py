"""History as JSON lines: a header, one object per attempt or gap, and a last line that says how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from streamwork.archive.form import Archive, Header, One, checked, cut_short
from streamwork.errors import HistoryFileError
from streamwork.model.history import HistoryGap, HistoryRecord

# A message has a megabyte at most, in base64 and beside its arguments; a line far beyond that is of no history file.
_LONGEST_LINE = 64 * 1_048_576


class _End(msgspec.Struct, frozen=True, tag="end", tag_field="kind"):
    records: int


_encode = msgspec.json.Encoder().encode
_decode_header = msgspec.json.Decoder(Header).decode
_decode = msgspec.json.Decoder(HistoryRecord | HistoryGap | _End).decode


class JsonLines:
    """Writes to an open file, which it closes unless it is standard output.

    Args:
        file: The file.
        header: Its first line.
        target: What the file is called in the end; None = it is standard output.
    """

    def __init__(self, file: BinaryIO, header: Header, target: Path | None = None) -> None:
        self._file = file
        self._target = target
        self._count = 0
        self._put(_encode(header))

    def _put(self, line: bytes) -> None:
        self._file.write(line + b"\n")

    def write(self, one: One) -> None:
        """Add one record or gap; arguments without a JSON form are left to the stored message beside them."""
        try:
            line = _encode(one)
        except (TypeError, ValueError, msgspec.MsgspecError):
            line = _encode(msgspec.structs.replace(one, args=None, kwargs={}))
        self._put(line)
        self._count += isinstance(one, HistoryRecord)

    def finish(self) -> None:
        """Say that this is all, and close."""
        self._put(_encode(_End(self._count)))
        self._file.flush()
        if self._target is not None:
            self._file.close()
            Path(self._file.name).replace(self._target)

    def give_up(self) -> None:
        """Close and leave no file behind."""
        if self._target is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)


def read_json_lines(path: Path) -> Archive:
    """Return what is in a file; raises HistoryFileError for one that is no history file of this version."""
    try:
        with path.open("rb") as file:
            header = _decode_header(file.readline(_LONGEST_LINE))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HistoryFileError(f"{path} is no history file: `streamwork history export` writes one") from error
    return Archive(checked(header, path), _lines(path))


def _lines(path: Path) -> Iterator[One]:
    count, number = 0, 1
    with path.open("rb") as file:
        file.readline(_LONGEST_LINE)
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if not line.endswith(b"\n"):
                break
            try:
                one = _decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise HistoryFileError(f"{path}, line {number}: {error}") from error
            if isinstance(one, _End):
                if one.records != count or file.read(1):
                    raise HistoryFileError(
                        f"{path}, line {number}: the end says {one.records:,} records, not {count:,}"
                    )
                return
            count += isinstance(one, HistoryRecord)
            yield one
    raise cut_short(path, count)
