"""Guards of connections and the embedded server: rules 38 and 39."""

from __future__ import annotations

from tests.faults.guard import WORKER, Change, Guard

STORE = "streamwork/store/"

EMBEDDED: dict[str, Guard] = {
    "control connection": Guard(
        38,
        "signals are listened for on a connection of their own",
        (
            Change(
                WORKER + "keeper.py", "driver = self._make_driver(Control.BLOCK_MS / 1000 + 5)", "driver = self.driver"
            ),
        ),
    ),
    "control": Guard(
        38,
        "a worker hears of cancellations while it is busy",
        (Change(WORKER + "keeper.py", "            self._listen(queue)\n", ""),),
    ),
    "reading connection": Guard(
        38,
        "a blocked read holds nothing else up",
        (
            Change(
                WORKER + "worker.py",
                "self._reading = self._driver(worker.block_s + client.deadline_s)",
                "self._reading = self.driver",
            ),
        ),
    ),
    "share": Guard(
        39,
        "a user of the embedded server holds a shared lock",
        (
            Change(
                STORE + "server.py",
                "self._users = self._become_user(place)",
                "self._users = try_lock(place.folder / 'other', shared=True)",
            ),
        ),
    ),
    "opened to close": Guard(
        39,
        "a share is opened so that it closes on exec; covered by Python, which opens every file so",
        (Change(STORE + "filelock.py", "os.O_RDWR | os.O_CREAT | os.O_CLOEXEC", "os.O_RDWR | os.O_CREAT"),),
    ),
    "closed on exec": Guard(
        39,
        "a program that a user starts is no user",
        (
            Change(
                STORE + "filelock.py",
                "            return FileLock(path, fd)\n",
                "            os.set_inheritable(fd, True)\n            return FileLock(path, fd)\n",
            ),
        ),
    ),
    "stopped alone": Guard(
        39,
        "the guardian stops the server only while it holds the lock alone",
        (
            Change(
                STORE + "guardian.py",
                "fcntl.flock(self.users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
                "fcntl.flock(self.users_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)",
            ),
        ),
    ),
    "server's pdeathsig": Guard(
        39,
        "the server dies with its guardian",
        (Change(STORE + "guardian.py", "self.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)", "pass"),),
    ),
    "start lock": Guard(
        39,
        "one server is started, however many start at once",
        (
            Change(
                STORE + "server.py",
                "lock = try_lock(self._place.start_lock, shared=False)",
                "lock = None if self._launched else try_lock(self._place.start_lock, shared=True)",
            ),
        ),
    ),
    "short path": Guard(
        39,
        "a socket's path is short enough for every server",
        (Change(STORE + "place.py", "    if _fits(inside):\n", "    if True:\n"),),
    ),
    "one machine": Guard(
        39,
        "a server on another machine is named",
        (Change(STORE + "place.py", "return None if not name or boot == boot_id() else name", "return None"),),
    ),
    "one user": Guard(
        39,
        "a folder of another user is refused",
        (Change(STORE + "place.py", "if status.st_uid != current_uid():", "if False:"),),
    ),
    "our folder": Guard(
        39,
        "a server counts as ready only if it serves this folder",
        (
            Change(
                STORE + "guardian.py",
                "    if reply == expected:\n        return READY\n",
                "    if reply.startswith(b'+PONG'):\n        return READY\n",
            ),
        ),
    ),
}
