"""Producers that fork, clients that all come back at once, and entries that no producer of ours wrote."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time

from streamwork.errors import StoreUnavailable
from streamwork.wire.message import remains
from tests.apps import ledger
from tests.faults.registry import scenario
from tests.faults.stage import NAMESPACE
from tests.faults.workload import Producer
from tests.helpers import ROOT, body_of

CLIENTS = 200


@scenario("fork-after-use", rules=(1, 2), most_duplicated_runs=0)
def fork_after_use(stage):
    """A producer forks after it has sent and waited; parent and children go on sending and waiting."""
    stage.pair()
    children = stage.random.randint(1, 3)
    command = [sys.executable, "-m", "tests.faults.forking", stage.history.folder, stage.url, NAMESPACE, str(children)]
    log = stage.folder / "forking.log"
    with log.open("wb") as output:
        status = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, timeout=60, check=False).returncode
    assert status == 0, log.read_text()
    senders = {record.pid for record in stage.history.of("acknowledged")}
    stage.prove("processes whose messages were acknowledged", len(senders) == children + 1 and len(senders))
    marks = stage.redis("KEYS", "*:sender:*")
    stage.prove("sender numbers in Redis", len(marks) >= children + 1 and len(marks))


@scenario("clients-reconnect", rules=(1, 37))
def clients_reconnect(stage):
    """Two hundred clients that send and wait lose their connections at one instant, and all come back."""
    stage.pair()
    crowd = _Crowd(stage)
    stage.until(lambda: crowd.acknowledged >= 1.2 * CLIENTS, "all are at it", 30.0)
    before = _connections(stage)
    stage.prove("clients connected", before["connected_clients"] >= CLIENTS and before["connected_clients"])
    if is_restart := stage.random.random() < 0.5:
        stage.server.stop(signal.SIGKILL)
        stage.server.start()
    else:
        stage.redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    had = 0 if is_restart else before["total_connections_received"]
    stage.until(lambda: _connections(stage)["total_connections_received"] - had >= CLIENTS, "all come back", 30.0)
    how = "after a restart" if is_restart else "after CLIENT KILL"
    stage.prove(f"connections made {how}", _connections(stage)["total_connections_received"] - had)
    crowd.again()
    crowd.stop()
    assert crowd.failures == []


class _Crowd:
    """Clients on one loop, each an app of its own with connections of its own."""

    def __init__(self, stage):
        self._producers = [Producer(stage.history, stage.app(), waiters=0) for _ in range(CLIENTS)]
        self._seeds = [stage.random.random() for _ in self._producers]
        self._ends = threading.Event()
        self._stage, self.failures = stage, []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        stage.on_settle(self.stop)

    @property
    def acknowledged(self):
        return sum(producer.acknowledged for producer in self._producers)

    def again(self):
        """Wait until each of them has been acknowledged something more."""
        before = [producer.acknowledged for producer in self._producers]
        now = lambda: all(one.acknowledged > had for one, had in zip(self._producers, before, strict=True))
        self._stage.until(now, "each sends again", 30.0)

    def stop(self):
        self._ends.set()
        self._thread.join(60)

    async def _run(self):
        try:
            await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))
        except BaseException as error:
            self.failures.append(repr(error))
        finally:
            await asyncio.gather(*(producer.app.aclose() for producer in self._producers))

    async def _client(self, number):
        producer, chance = self._producers[number], random.Random(self._seeds[number])
        turn = 0
        while not self._ends.is_set():
            label = f"client-{number}-{turn}"
            turn += 1
            handle = await producer.asend("quick", label=label)
            give_up_at = time.monotonic() + 30
            while handle is not None and not await producer.asee(label, handle, 5):
                if time.monotonic() > give_up_at:
                    producer.history.write("unseen", label, handle.id, error="no end within the patience")
                    break
            await asyncio.sleep(chance.uniform(0.5, 2.0))


def _connections(stage):
    try:
        facts = stage.redis("INFO", "stats") + stage.redis("INFO", "clients")
    except StoreUnavailable:  # its own connection is of those that were cut
        facts = b"total_connections_received:0"
    lines = [line.split(":", 1) for line in facts.decode().splitlines() if ":" in line]
    return {name: int(value) for name, value in lines if name in ("total_connections_received", "connected_clients")}


@scenario("garbage-under-load", rules=(21,))
def garbage_under_load(stage):
    """Somebody writes truncated bodies, random bytes and unknown fields onto the lane, among good messages."""
    stage.pair()
    stage.load(threads=3)
    for number in range(40):
        fields = _garbage(stage.random, number)
        entry = stage.redis("XADD", stage.keys.lane("1:"), "*", *(part for pair in fields.items() for part in pair))
        known = remains(fields.get("d", b""))
        stage.planted(known.id if known is not None else f"entry-1:-{entry.decode()}")
        if number % 5 == 0:
            stage.sent(2)
    stage.until(lambda: len(stage.state().dead) == 40, "all of it is dead")
    reasons = {letter.reason for letter in stage.state().dead.values()}
    stage.prove("dead letters for what nobody sent", reasons == {"undecodable"} and 40)
    stage.sent(20)


def _garbage(chance, number):
    body = body_of(ledger.app.tasks["ledger.quick"].name, f"planted-{number}")[1]
    return chance.choice([
        {"d": body[: chance.randrange(len(body))]},
        {"d": chance.randbytes(chance.randrange(1, 400))},
        {"d": body, "x": chance.randbytes(20)},
        {"a": "1,0,0,1,x", "d": body},
        {"x": chance.randbytes(10)},
        {"a": f"{chance.randrange(-9, 0)},0,0,1,0", "d": body},
    ])  # fmt: skip
