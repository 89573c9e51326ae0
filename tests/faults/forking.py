"""A producer that forks after it has sent: parent and children go on, and each waits for what it sent.

``python -m tests.faults.forking HISTORY URL NAMESPACE CHILDREN``; run as a process of its own, which may fork at will.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings

from streamwork import Streamwork
from tests.apps import ledger
from tests.faults.history import History
from tests.faults.workload import Producer

_EACH = 15


def _send(producer, count=_EACH):
    sent = []
    for number in range(count):
        label = f"fork-{os.getpid()}-{producer.acknowledged}"
        sent.append((label, producer.send("quick" if number % 2 else "slow", *[0.01][number % 2 :], label=label)))
    return sent


def _see(producer, sent):
    for label, handle in sent:
        assert producer.see(label, handle, 30.0), label


def main(history, url, namespace, children):
    """Send, fork, send, and wait; fails where a child does."""
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks with threads, which are the point
    producer = Producer(History(history), ledger.declare(Streamwork(namespace, url=url)), waiters=0)
    sent = _send(producer)
    _see(producer, sent[:3])  # listener and connections are in use by now
    pids = []
    for _ in range(int(children)):
        mine, its = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            mine.close()
            _child(producer, its)
        its.close()
        pids.append(pid)
        # One message of each, the child's right behind the parent's: with a common sender both would have one number.
        sent += _send(producer, 1)
        mine.send(b"x")
        assert mine.recv(1), "the child died"
    sent += _send(producer)
    _see(producer, sent[3:])
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)


def _child(producer, parent):
    status = 1
    try:
        parent.recv(1)
        sent = _send(producer, 1)
        parent.send(b"x")
        _see(producer, sent + _send(producer))
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
