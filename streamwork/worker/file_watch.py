"""The program that watches files for a supervisor: writes the names of what changed into the socket it is given."""

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
    for changes in watch(".", watch_filter=PythonFilter(), debounce=200, raise_interrupt=False):
        end.sendall("\n".join(sorted(os.path.relpath(path) for _, path in changes)).encode() + b"\n")


def _end_with(end: socket.socket) -> None:
    end.recv(1)  # nothing is ever sent: it answers at the end of file
    os._exit(0)


if __name__ == "__main__":
    main()
