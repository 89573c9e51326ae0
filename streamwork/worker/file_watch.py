"""The program that watches files for a supervisor: writes the names of what changed into the socket it is given.

An empty line comes first, as soon as no change is missed any more.
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def main() -> None:
    """Watch Python files below the current folder until the other side of the socket is closed."""
    from watchfiles import PythonFilter, watch  # an extra

    end = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with, args=(end,), daemon=True).start()
    begun = _Begun(end)
    for changes in watch(".", watch_filter=PythonFilter(), debounce=200, stop_event=begun, raise_interrupt=False):
        end.sendall("\n".join(sorted(os.path.relpath(path) for _, path in changes)).encode() + b"\n")


class _Begun:
    """An event that never comes: watchfiles asks for it once the files are watched, and that is all we want to know."""

    def __init__(self, end: socket.socket) -> None:
        self._end: socket.socket | None = end

    def is_set(self) -> bool:
        end, self._end = self._end, None
        if end is not None:
            end.sendall(b"\n")
        return False


def _end_with(end: socket.socket) -> None:
    end.recv(1)  # nothing is ever sent: it answers at the end of file
    os._exit(0)


if __name__ == "__main__":
    main()
