"""The log of one replay: a file that says which messages are sent, so that a later run goes on without sending twice.

Lines of JSON, each written durably before the next step: what the replay is, what is about to be sent under which new
ids, and that it was. Where the last chunk is not answered for, Redis is asked for its ids.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamwork.errors import ReplayRefused
from streamwork.ids import random_id

VERSION = 1
_FOLDER, _SUFFIX = "replays", ".jsonl"


class Head(msgspec.Struct, tag="replay", tag_field="kind"):
    """What a replay is.

    Attributes:
        version: Of the file.
        replay: Its id.
        what: Digest of the command: namespace, queues, filters, changes.
        since_ms, until_ms: What was asked for, as instants: a later run is about the same messages.
        limit: Messages at most.
    """

    version: int
    replay: str
    what: str
    since_ms: int | None
    until_ms: int
    limit: int | None


class Chunk(msgspec.Struct, tag="chunk", tag_field="kind"):
    """What is about to be sent, or never will be: pairs of the past id and the new one."""

    ids: list[tuple[str, str]]


class Answer(msgspec.Struct, tag="sent", tag_field="kind"):
    """What became of the chunk before it: past id → why it was refused; all the others of it are sent."""

    refused: dict[str, str] = {}
    # Of a chunk that nobody had answered for: those that had not arrived.
    missing: list[str] = []


class End(msgspec.Struct, tag="end", tag_field="kind"):
    """All of it is done."""


_Line = Head | Chunk | Answer | End
_read = msgspec.json.Decoder(_Line)


def digest(*parts: Any) -> str:
    """Return what tells one command from another."""
    text = msgspec.json.encode(parts, enc_hook=repr, order="deterministic")
    return hashlib.blake2b(text, digest_size=8).hexdigest()


class Log:
    """One replay's file, locked while it is open.

    Attributes:
        head: What the replay is.
        sent: Past ids that are sent.
        refused: Past id → why not.
        in_doubt: The last chunk, where nobody answered for it.
    """

    def __init__(self, path: Path, head: Head, file: Any) -> None:
        self.head = head
        self.sent: set[str] = set()
        self.refused: dict[str, str] = {}
        self.in_doubt: list[tuple[str, str]] = []
        self.is_over = False
        self._path, self._file = path, file

    def begin(self, ids: Sequence[tuple[str, str]]) -> None:
        """Note what is about to be sent."""
        self.in_doubt = list(ids)
        self._write(Chunk(self.in_doubt))

    def answer(self, refused: dict[str, str], missing: Sequence[str] = ()) -> None:
        """Note what became of it."""
        self._write(Answer(refused, list(missing)))
        self._take(refused, missing)

    def _take(self, refused: dict[str, str], missing: Sequence[str]) -> None:
        self.sent |= {old for old, _ in self.in_doubt} - refused.keys() - set(missing)
        self.refused.update(refused)
        self.in_doubt = []

    def _write(self, line: _Line) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def end(self) -> None:
        """Note that all of it is done; the file stays as a record."""
        self._write(End())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> None:
        """Take over what the file says; a last line that is cut short was never acted on.

        Raises:
            ReplayRefused: It is not one of ours.
        """
        whole, self._file_size = 0, 0
        self._file.seek(0)
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n"):
                break
            try:
                found = _read.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise ReplayRefused(f"{self._path}, line {number + 1}: no log of a replay: {error}") from error
            whole += len(line)
            if isinstance(found, Chunk):
                self.in_doubt = [(old, new) for old, new in found.ids]
            elif isinstance(found, Answer):
                self._take(found.refused, found.missing)
            elif isinstance(found, End):
                self.is_over = True
        self._file.truncate(whole)
        self._file.seek(whole)


def create(folder: Path, what: str, since_ms: int | None, until_ms: int, limit: int | None) -> Log:
    """Begin the log of a new replay; raises OSError."""
    place = folder / _FOLDER
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    head = Head(VERSION, random_id(48), what, since_ms, until_ms, limit)
    path = place / f"{head.replay}{_SUFFIX}"
    file = path.open("xb+")
    log = Log(path, head, file)
    _lock(log, file)
    log._write(head)  # noqa: SLF001 - its first line
    return log


def unfinished(folder: Path, what: str) -> Log | None:
    """Open the newest log of this very command that has not come to its end; None = there is none.

    Raises:
        ReplayRefused: It is running now, or it is of another version.
    """
    for path in sorted(_paths(folder), key=_written_at_s, reverse=True):
        with path.open("rb") as first:
            head = _head(first.readline())
        if head is None or head.what != what:
            continue
        file = path.open("rb+")
        log = Log(path, head, file)
        try:
            _lock(log, file)
            if head.version != VERSION:
                raise ReplayRefused(f"{path} is of version {head.version}, and this is version {VERSION}")
            log.read()
        except BaseException:
            file.close()
            raise
        if not log.is_over:
            return log
        file.close()
    return None


def _head(line: bytes) -> Head | None:
    try:
        found = _read.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found if isinstance(found, Head) else None


def _lock(log: Log, file: Any) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ReplayRefused(f"replay {log.head.replay} is running now, in another process") from error


def _paths(folder: Path) -> Iterator[Path]:
    yield from (folder / _FOLDER).glob(f"*{_SUFFIX}")


def _written_at_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
