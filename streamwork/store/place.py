"""The folder of an embedded server: whose it is, what lies in it, where its socket goes."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from streamwork.errors import EmbeddedError

# sun_path holds 104 bytes on BSD and 108 on Linux; Redis 6.2 cuts a longer path off in silence.
_MAX_SOCKET_BYTES = 100

_PRIVATE = 0o700
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one embedded server.

    Attributes:
        folder: Absolute, without symbolic links, so that all users of it agree on its name.
    """

    folder: Path

    @property
    def users(self) -> Path:
        """Return the file that each user holds a shared lock on."""
        return self.folder / "users"

    @property
    def start_lock(self) -> Path:
        """Return the file locked by who starts the server, then by the guardian and the server for their whole life."""
        return self.folder / "start.lock"

    @property
    def data(self) -> Path:
        """Return the working directory of the server."""
        return self.folder / "data"

    @property
    def server_log(self) -> Path:
        """Return the log of the server."""
        return self.folder / "redis.log"

    @property
    def guardian_log(self) -> Path:
        """Return the log of the guardian, and what the server says before it has a log."""
        return self.folder / "guardian.log"

    @property
    def socket_note(self) -> Path:
        """Return the file that says where the socket is."""
        return self.folder / "socket"

    @property
    def host_note(self) -> Path:
        """Return the file that says on which machine, since which boot, the server runs."""
        return self.folder / "host"

    def socket_path(self) -> str | None:
        """Return where the socket of the last started server is; None = never started here."""
        try:
            return os.fsdecode(self.socket_note.read_bytes().strip()) or None
        except FileNotFoundError:
            return None

    def foreign_host(self) -> str | None:
        """Return the name of the other machine that started the last server; None = this one, in this boot, or nobody.

        Containers of one machine share a boot id and can share locks and sockets, so their names do not count.
        """
        try:
            name, _, boot = self.host_note.read_text().strip().partition(" ")
        except FileNotFoundError:
            return None
        return None if not name or boot == boot_id() else name

    def note_start(self, socket_path: str) -> None:
        """Write down this machine and the socket, each in one step; only for the holder of the start lock."""
        _replace(self.host_note, f"{platform.node() or 'localhost'} {boot_id()}\n".encode())
        _replace(self.socket_note, os.fsencode(socket_path) + b"\n")


def prepare(folder: Path) -> Place:
    """Make the folder, private to this user and ignored by git, and return its files.

    Raises:
        EmbeddedError: It belongs to another user; nothing was changed.
        OSError: It cannot be made or written.
    """
    folder = Path(os.path.realpath(folder))
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != current_uid():
        raise EmbeddedError(
            f"{folder} belongs to user {status.st_uid} and this process runs as user {current_uid()}: "
            "an embedded Redis serves one user; run as that user, or set STREAMWORK_URL to a Redis that both can use"
        )
    if stat.S_IMODE(status.st_mode) != _PRIVATE:
        folder.chmod(_PRIVATE)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    (folder / "data").mkdir(mode=_PRIVATE, exist_ok=True)
    return Place(folder)


def choose_socket(place: Place, runtime_dir: str | None) -> str:
    """Return the socket path for a new server: in its folder, or in a private place with a short name.

    Args:
        place: The server's files.
        runtime_dir: Value of XDG_RUNTIME_DIR; used where the folder's own path is too long and it is private to this
            user. None or empty = not set.

    Raises:
        EmbeddedError: The folder for sockets under the temp folder is not ours alone, or its path is too long as well.
    """
    inside = str(place.folder / "redis.sock")
    if _fits(inside):
        return inside
    name = f"streamwork-{hashlib.sha256(os.fsencode(place.folder)).hexdigest()[:16]}.sock"
    if runtime_dir and _is_private(Path(runtime_dir)) and _fits(str(Path(runtime_dir) / name)):
        return str(Path(runtime_dir) / name)
    shelter = Path(tempfile.gettempdir()) / f"streamwork-{current_uid()}"
    shelter.mkdir(mode=_PRIVATE, exist_ok=True)
    if not _is_private(shelter):
        raise EmbeddedError(
            f"{shelter} is needed for the socket of the embedded Redis and is not a folder of mode 0700 of this user: "
            "remove it, or set TMPDIR to a folder of your own"
        )
    if not _fits(str(shelter / name)):
        raise EmbeddedError(
            f"neither {place.folder} nor {shelter} is short enough for a socket ({_MAX_SOCKET_BYTES} bytes): "
            "move the project, or set TMPDIR to a shorter folder"
        )
    return str(shelter / name)


def current_uid() -> int:
    """Return the user that this process acts as."""
    return os.geteuid()


def boot_id() -> str:
    """Return what tells this machine, since its last start, from all others."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return platform.node()


def _fits(path: str) -> bool:
    # A name that is not UTF-8 would not survive the URL.
    try:
        return len(path.encode()) <= _MAX_SOCKET_BYTES
    except UnicodeEncodeError:
        return False


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == current_uid() and not status.st_mode & 0o077


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    fresh.replace(path)
