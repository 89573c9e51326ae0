"""The last log lines of a process, in memory that outlives it: evidence where it dies without a word."""

from __future__ import annotations

import logging
import mmap
import struct

# How many bytes were written in all; the lines stand behind, over and over.
_WRITTEN = struct.Struct("<Q")
_ROOM = 4096 - _WRITTEN.size
# Of a dead letter that a message takes along; the lines of a whole process are told by its log.
_MOST_LINES = 10
_MOST_BYTES = 2_000


class LastLines:
    """A page of shared memory; made before the fork, so that the supervisor can read what its process wrote."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _WRITTEN.size + _ROOM)

    def add(self, line: str) -> None:
        """Note a line; of a longer one than fits, the end. Not from two threads at once: a log handler has a lock."""
        data = line.encode(errors="replace")[-_ROOM + 1 :] + b"\n"
        (written,) = _WRITTEN.unpack_from(self._memory)
        place = _WRITTEN.size + written % _ROOM
        first = data[: _WRITTEN.size + _ROOM - place]
        self._memory[place : place + len(first)] = first
        rest = data[len(first) :]
        self._memory[_WRITTEN.size : _WRITTEN.size + len(rest)] = rest
        _WRITTEN.pack_into(self._memory, 0, written + len(data))

    def text(self) -> str:
        """Return the last lines, at most ten of them and 2,000 bytes; "" = there was none, or the memory is freed."""
        if self._memory.closed:
            return ""
        (written,) = _WRITTEN.unpack_from(self._memory)
        place = written % _ROOM if written > _ROOM else 0
        kept = self._memory[_WRITTEN.size + place : _WRITTEN.size + min(written, _ROOM)]
        if place:
            kept += self._memory[_WRITTEN.size : _WRITTEN.size + place]
        whole = kept[-_MOST_BYTES:]
        lines = whole.decode(errors="replace").splitlines()
        # The first one may have lost its beginning.
        return "\n".join((lines if len(whole) == written else lines[1:])[-_MOST_LINES:])

    def close(self) -> None:
        """Free the memory on this side."""
        self._memory.close()


class Keeper(logging.Handler):
    """Notes log records there."""

    def __init__(self, lines: LastLines, formatter: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Note one record."""
        try:
            self._lines.add(self.format(record))
        except Exception:  # noqa: BLE001 - what cannot be told must not stop who tells it
            self.handleError(record)
