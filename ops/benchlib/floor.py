"""Raw loops of redis-py, in the `raw` environment: what a client without any task system reaches here.

python -m benchlib.floor LOOP --tasks 20000      prints one marked JSON line with the rate
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis
import redis.asyncio

from benchlib.recorder import URL

_BODY: dict[Any, Any] = {b"data": b'{"id":"0123456789abcdef0123456789abcdef","task":"noop","args":[12345],"kwargs":{}}'}
_STREAM, _GROUP, _CONSUMER = "stream", "group", "consumer"
_BATCH = 100


def _batches(tasks: int) -> Iterator[int]:
    for begin in range(0, tasks, _BATCH):
        yield min(_BATCH, tasks - begin)


def xadd_one(client: Any, tasks: int) -> float:
    """XADD one at a time; return the seconds."""
    begun = time.perf_counter()
    for _ in range(tasks):
        client.xadd(_STREAM, _BODY)
    return time.perf_counter() - begun


def xadd_pipeline(client: Any, tasks: int) -> float:
    """XADD in pipelines of 100; return the seconds."""
    begun = time.perf_counter()
    for size in _batches(tasks):
        pipeline = client.pipeline(transaction=False)
        for _ in range(size):
            pipeline.xadd(_STREAM, _BODY)
        pipeline.execute()
    return time.perf_counter() - begun


def read_ack(client: Any, tasks: int, count: int) -> float:
    """XREADGROUP up to `count`, then XACK them, until `tasks` are done; return the seconds."""
    xadd_pipeline(client, tasks)
    client.xgroup_create(_STREAM, _GROUP, "0")
    begun, done = time.perf_counter(), 0
    while done < tasks:
        for _, entries in client.xreadgroup(_GROUP, _CONSUMER, {_STREAM: ">"}, count=count):
            client.xack(_STREAM, _GROUP, *[entry_id for entry_id, _ in entries])
            done += len(entries)
    return time.perf_counter() - begun


async def _xadd_pipeline_async(tasks: int) -> float:
    client: Any = redis.asyncio.Redis.from_url(URL)
    begun = time.perf_counter()
    for size in _batches(tasks):
        pipeline = client.pipeline(transaction=False)
        for _ in range(size):
            pipeline.xadd(_STREAM, _BODY)
        await pipeline.execute()
    took = time.perf_counter() - begun
    await client.aclose()
    return took


LOOPS = {
    "loop": xadd_one,
    "pipeline": xadd_pipeline,
    "asyncio-pipeline": lambda _client, tasks: asyncio.run(_xadd_pipeline_async(tasks)),
    "read-ack": lambda client, tasks: read_ack(client, tasks, 1),
    "read-ack-100": lambda client, tasks: read_ack(client, tasks, _BATCH),
}


def main() -> None:
    """Run the loop that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("--tasks", type=int, default=20000)
    options = parser.parse_args()
    client: Any = redis.Redis.from_url(URL)
    client.ping()
    loop: Callable[[Any, int], float] = LOOPS[options.loop]
    seconds = loop(client, options.tasks)
    sys.stdout.write("\nBENCH " + json.dumps({"sent": options.tasks, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
