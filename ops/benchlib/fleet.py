"""What an enqueue costs the server while 1,000 idle clients wait on 8 lanes: at bells, as large fleets do, or blocked.

    .venv/bin/python ops/benchlib/fleet.py

The clients are bare sockets that sent one blocking command. Each is woken once, so fewer enqueues are counted.
"""

from __future__ import annotations

import resource
import socket
import sys
import time

from streamwork import Streamwork
from streamwork.store.commands import packed, plain
from streamwork.testing.server import PrivateServer

_CLIENTS, _ENQUEUED = 1_000, 800
_LANES = [(level, tags) for level in (9, 5) for tags in ((), ("a",), ("b",), ("a", "b"))]


def main() -> None:
    """Measure three times and print a line for each."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = PrivateServer(None, "--maxclients", str(_CLIENTS + 100))
    app = Streamwork("fleet", url=server.url)

    @app.task
    def noop(number: int) -> None: ...

    tasks = [noop.options(priority=level, tags=set(tags)) for level, tags in _LANES]
    for task in tasks:
        task.enqueue(0)
    driver, keys = app.connection.driver, app.connection.keys("default")
    lanes = [lane.decode() for lane in driver.run(plain("HKEYS", keys.lanes))]
    bells = sorted({keys.bell(lane) for lane in lanes})
    streams = [keys.lane(lane) for lane in lanes]

    def server_s() -> float:
        lines = driver.run(plain("INFO", "cpu")).decode().splitlines()
        facts = dict(line.split(":") for line in lines if ":" in line)
        return float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])

    def measure(label: str, *waiting: str | int) -> None:
        driver.run(plain("DEL", *bells))
        while any(driver.run(plain("XREADGROUP", "GROUP", "workers", "x", "COUNT", 1000, "STREAMS", *streams,
                                   *([">"] * len(streams)))) or ()):  # fmt: skip
            pass
        clients = []
        for _ in range(_CLIENTS if waiting else 0):
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].connect(server.socket_path)
            clients[-1].sendall(packed((plain(*waiting),)))
        time.sleep(1)
        before_s = server_s()
        for number in range(_ENQUEUED):
            tasks[number % len(tasks)].enqueue(number)
        each_us = (server_s() - before_s) / _ENQUEUED * 1e6
        sys.stdout.write(f"{label:36} {each_us:6.0f} us of the server for each enqueue\n")
        for client in clients:
            client.close()

    sys.stdout.write(f"{len(lanes)} lanes, {len(bells)} bells\n")
    measure("nobody waits")
    measure(f"{_CLIENTS:,} wait at the bells", "BLPOP", *bells, 0)
    read = ("XREADGROUP", "GROUP", "workers", "y", "COUNT", 1, "BLOCK", 0, "STREAMS")
    measure(f"{_CLIENTS:,} block on the streams", *read, *streams, *([">"] * len(streams)))
    app.close()
    server.close()


if __name__ == "__main__":
    main()
