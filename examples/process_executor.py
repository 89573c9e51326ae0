"""Processes: bodies that use a whole core, and bodies that never end.

In this folder (needs the extra `process`: pip install '<path to the clone>[process]'):

    streamwork worker --app process_executor        in one terminal
    python process_executor.py                      in another

A thread cannot be stopped from outside, a process can: at the time limit it is killed, and the worker goes on.
"""

from __future__ import annotations

import os

from streamwork import Streamwork, TaskFailed

app = Streamwork("process-executor")


@app.task(executor="process")
def primes_below(n: int) -> int:
    sieve = bytearray([1]) * n
    sieve[:2] = b"\0\0"
    for number in range(2, int(n**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, n, number)))
    return sum(sieve)


@app.task(executor="process", timeout=1, retry=None)
def spin_for_ever() -> None:
    while True:
        pass


@app.task
async def worker_pid() -> int:
    return os.getpid()


if __name__ == "__main__":
    before = worker_pid.enqueue().result(timeout=20)
    handles = app.enqueue_many(primes_below.call(n) for n in (10, 1_000, 1_000_000))
    print("primes:", [handle.result(timeout=30) for handle in handles])
    try:
        spin_for_ever.enqueue().result(timeout=30)
    except TaskFailed as error:
        print(f"killed: {error}")
    after = worker_pid.enqueue().result(timeout=20)
    print("the worker is", "the same as before" if before == after else "another one")
