"""The bare machinery, in the `raw` environment: what one Python worker process can drain here with redis-py alone.

Per task: decode the body, run it (asyncio task, slot coroutine or OS thread), encode the result, then settle in
batches: XACK gate, result SET PX, journal XADD, in one script per batch while the next read is in flight. No
middleware, context, telemetry or crash handling: the distance to the product is what the product's own code costs.

    python -m benchlib.machinery MODE --tasks 20000     fills its own lane, records like every peer, prints one line
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import sys
import threading
import time
from collections import deque
from typing import Any

import msgspec
import redis.asyncio

from benchlib.recorder import STARTED, URL, record

_SETTLE = """
local call, lost = redis.call, {}
for i = 3, #ARGV, 4 do
  if call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    call('SET', ARGV[i + 1], ARGV[i + 2], 'PX', ARGV[2])
    call('XADD', KEYS[2], '*', 'd', ARGV[i + 3])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""
_LANE, _GROUP, _JOURNAL = "lane", "workers", "journal"
_RESULT_MS = 86_400_000
_SETTLE_MOST = 500
_TIMEOUT_S = 30

Outcome = tuple[bytes, str, bytes, bytes]


class Message(msgspec.Struct, array_like=True):
    """A task as stored."""

    version: int
    id: str
    task: str
    args: bytes
    options: dict[str, object]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Message).decode
_unpack_args = msgspec.msgpack.Decoder(tuple[int]).decode


def _body(i: int) -> int:
    record(i)
    return i


async def _async_body(i: int, sleep_s: float) -> int:
    if sleep_s:
        record(i, STARTED)
        await asyncio.sleep(sleep_s)
    return _body(i)


def _outcome(entry: bytes, message: Message, started: float, result: int) -> Outcome:
    journal = (entry, message.id, 1, "w1", started, time.time(), 0)
    return entry, "res:" + message.id, _pack((0, result)), _pack(journal)


class Machinery:
    """One reading loop, one settling loop, and bodies run in one of four ways."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._mode, self._tasks, self._sleep_s = options.mode, options.tasks, options.sleep
        self._slots, self._threads = options.slots, options.threads
        self._read: Any = redis.asyncio.Redis.from_url(URL, protocol=2, socket_timeout=None)
        self._write: Any = redis.asyncio.Redis.from_url(URL, protocol=2, socket_timeout=None)
        self._loop = asyncio.get_running_loop()
        self._outcomes: list[Outcome] = []
        self._waiting: deque[tuple[bytes, Message]] = deque()
        self._for_threads: queue.SimpleQueue[tuple[bytes, Message]] = queue.SimpleQueue()
        self._work_arrived, self._outcome_arrived, self._room_made = (asyncio.Event() for _ in range(3))
        self._running: set[asyncio.Task[None]] = set()
        self._taken = self._settled = 0
        self._wake_scheduled = False

    async def fill(self) -> None:
        """Queue the tasks."""
        await self._write.xgroup_create(_LANE, _GROUP, "0", mkstream=True)
        for begin in range(0, self._tasks, 1000):
            pipeline = self._write.pipeline(transaction=False)
            for i in range(begin, min(begin + 1000, self._tasks)):
                message = Message(1, f"019359c0a1b27c3d8e9f{i:012d}", "bench.noop", _pack((i,)), {})
                pipeline.xadd(_LANE, {"a": 1, "d": _pack(message)})
            await pipeline.execute()

    def _finish(self, entry: bytes, message: Message, started: float, result: int) -> None:
        self._outcomes.append(_outcome(entry, message, started, result))
        self._outcome_arrived.set()
        self._room_made.set()

    async def _run(self, entry: bytes, message: Message) -> None:
        started = time.time()
        if self._mode == "timeout":
            async with asyncio.timeout(_TIMEOUT_S):
                result = await _async_body(*_unpack_args(message.args), self._sleep_s)
        else:
            result = await _async_body(*_unpack_args(message.args), self._sleep_s)
        self._finish(entry, message, started, result)

    async def _slot(self) -> None:
        while True:
            while not self._waiting:
                self._work_arrived.clear()
                await self._work_arrived.wait()
            await self._run(*self._waiting.popleft())

    def _wake(self) -> None:
        self._wake_scheduled = False
        self._outcome_arrived.set()
        self._room_made.set()

    def _thread(self) -> None:
        while True:
            entry, message = self._for_threads.get()
            started = time.time()
            self._outcomes.append(_outcome(entry, message, started, _body(*_unpack_args(message.args))))
            if not self._wake_scheduled:
                self._wake_scheduled = True
                self._loop.call_soon_threadsafe(self._wake)

    async def _settle(self) -> None:
        sha = await self._write.script_load(_SETTLE)
        while self._settled < self._tasks:
            if not self._outcomes:
                self._outcome_arrived.clear()
                if not self._outcomes:
                    await self._outcome_arrived.wait()
                continue
            batch = self._outcomes[:_SETTLE_MOST]
            del self._outcomes[: len(batch)]
            words = [word for outcome in batch for word in outcome]
            await self._write.execute_command("EVALSHA", sha, 2, _LANE, _JOURNAL, _GROUP, _RESULT_MS, *words)
            self._settled += len(batch)
            self._room_made.set()

    def _start(self, entry: bytes, message: Message) -> None:
        if self._mode == "slots":
            self._waiting.append((entry, message))
            self._work_arrived.set()
        elif self._mode == "threads":
            self._for_threads.put((entry, message))
        else:
            task = self._loop.create_task(self._run(entry, message))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _next_entries(self, room: int) -> None:
        words = ["GROUP", _GROUP, "c1", "COUNT", room, "BLOCK", 2000, "STREAMS", _LANE, ">"]
        for _, entries in await self._read.execute_command("XREADGROUP", *words) or ():
            for entry, fields in entries:
                message = _unpack(fields[b"d"])
                self._taken += 1
                self._start(entry, message)

    async def drain(self) -> dict[str, float]:
        """Run everything and return tasks, seconds and how many results Redis holds."""
        if self._mode == "slots":
            self._running.update(self._loop.create_task(self._slot()) for _ in range(self._slots))
        if self._mode == "threads":
            for _ in range(self._threads):
                threading.Thread(target=self._thread, daemon=True).start()
        begun = time.perf_counter()
        settler = asyncio.create_task(self._settle())
        while self._taken < self._tasks:
            room = self._slots - (self._taken - self._settled - len(self._outcomes))
            if room <= 0:
                self._room_made.clear()
                await self._room_made.wait()
            else:
                await self._next_entries(room)
        await settler
        seconds = time.perf_counter() - begun
        return {"sent": self._tasks, "seconds": seconds, "results": await self._write.dbsize() - 2}


async def _measure(options: argparse.Namespace) -> dict[str, float]:
    machinery = Machinery(options)
    await machinery.fill()
    return await machinery.drain()


def main() -> None:
    """Run the mode that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["task", "timeout", "slots", "threads"])
    parser.add_argument("--tasks", type=int, default=20000)
    parser.add_argument("--slots", type=int, default=500)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds that each async body waits, as in W4")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop, as streamwork's workers do")
    options = parser.parse_args()
    if options.uvloop:
        import uvloop

        figures = uvloop.run(_measure(options))
    else:
        figures = asyncio.run(_measure(options))
    sys.stdout.write("\nBENCH " + json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
