"""Whether a Redis server is fit for queues: read-only questions and pure judgements, for doctor and health checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from streamwork.broker.info import eviction_warning, info, is_nearly_full, server_name
from streamwork.broker.steps import Steps
from streamwork.clock import SYSTEM_CLOCK
from streamwork.store.commands import plain
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.wire.message import WIRE_VERSION

Verdict = Literal["ok", "note", "warning", "failure"]
Facts = Mapping[str, str]

# XAUTOCLAIM and the other commands of the store came with it.
MINIMUM = (6, 2)
_COMMANDS = ("xautoclaim", "xpending", "evalsha", "lmove", "copy")
# Due times are the server's: a second is felt. Looking an id up allows for a minute.
_CLOCK_WARNING_MS, _CLOCK_FAILURE_MS = 1_000, 60_000
_SLOW_MS = 50
_CROWDED = 0.8


class Check(msgspec.Struct, frozen=True):
    """One thing looked at.

    Attributes:
        name: What.
        verdict: ``ok``, ``note`` (worth knowing), ``warning`` or ``failure``.
        found: What was seen.
        remedy: What to do; empty where nothing is.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def checkup(*, is_embedded: bool) -> Steps[list[Check]]:
    """Look at the server; each check stands for itself."""
    yield [plain("TIME")]  # connects, which is not to count as a round trip; PING is refused where a write has failed
    before_ms = SYSTEM_CLOCK.now_ms()
    ((seconds, micros),) = yield [plain("TIME")]
    after_ms = SYSTEM_CLOCK.now_ms()
    sections = ("server", "persistence", "memory", "clients", "replication", "cluster", "stats")
    answers = yield [
        *(info(section) for section in sections),
        plain("COMMAND", "INFO", *_COMMANDS),
        plain("SCRIPT", "EXISTS", *(script.sha for script in ALL_SCRIPTS)),
    ]
    *rest, commands, loaded = answers
    server, persistence, memory, clients, replication, cluster, _ = rest
    server_ms = int(seconds) * 1000 + int(micros) // 1000
    return [
        version(server, commands),
        protocol(loaded),
        durability(persistence, is_embedded=is_embedded),
        eviction(memory),
        room(memory),
        clock(server_ms, before_ms, after_ms),
        replicas(replication, cluster),
        connections(clients),
    ]


def version(server: Facts, commands: Sequence[Any]) -> Check:
    """Judge the version by what the server can do; the number alone lies (Valkey)."""
    name = server_name(server)
    missing = [command for command, found in zip(_COMMANDS, commands, strict=True) if found is None]
    numbers = tuple(int(part) for part in server.get("redis_version", "0").split(".")[:2] if part.isdecimal())
    if missing or numbers < MINIMUM:
        lacks = f", without {', '.join(missing).upper()}" if missing else ""
        return Check("version", "failure", name + lacks, "use Redis or Valkey 6.2 or newer")
    return Check("version", "ok", name)


def protocol(loaded: Sequence[Any]) -> Check:
    """Judge whether our scripts are there; connecting has just loaded them."""
    there = sum(map(bool, loaded))
    found = f"RESP2, wire version {WIRE_VERSION}, {there} of {len(ALL_SCRIPTS)} scripts loaded"
    if there < len(ALL_SCRIPTS):
        return Check("protocol", "failure", found, "let this user run SCRIPT LOAD and EVALSHA (ACL: +@scripting)")
    return Check("protocol", "ok", found)


def durability(persistence: Facts, *, is_embedded: bool) -> Check:
    """Judge what a crash of the server would cost."""
    for state, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if persistence.get(state, "ok") != "ok":
            return Check(
                "persistence", "failure", f"the last write of the {what} failed", "see the server's log: disk full?"
            )
    if persistence.get("loading") == "1":
        return Check("persistence", "warning", "the server is loading its data", "wait for it")
    if persistence.get("aof_enabled") == "1":
        return Check("persistence", "ok", "append-only file" + (", every second" if is_embedded else ""))
    found = "no append-only file: a crash of Redis loses what came after the last snapshot, if there is one"
    return Check("persistence", "warning", found, "set appendonly yes")


def eviction(memory: Facts) -> Check:
    """Judge the eviction policy: a queue is no cache."""
    warning = eviction_warning(memory)
    if warning:
        found, _, remedy = warning.partition("; ")
        return Check("eviction", "failure", found, remedy)
    return Check("eviction", "ok", memory.get("maxmemory_policy", "unknown"))


def room(memory: Facts) -> Check:
    """Judge how full the server is."""
    used, most = int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))
    mb = 1_048_576
    if not most:
        system = int(memory.get("total_system_memory", 0))
        of = f" of {system / mb:,.0f} MiB in the machine" if system else ""
        return Check(
            "memory",
            "note",
            f"{used / mb:,.1f} MiB{of}, no maxmemory",
            "set maxmemory, so that a full queue is refused in time",
        )
    found = f"{used / mb:,.1f} of {most / mb:,.1f} MiB ({used / most:.0%})"
    if used >= most:
        return Check(
            "memory", "failure", f"{found}: nothing can be enqueued", "raise maxmemory, or let workers drain the queues"
        )
    if is_nearly_full(memory):
        return Check(
            "memory",
            "warning",
            f"{found}: history is trimmed early",
            "raise maxmemory, or let workers drain the queues",
        )
    return Check("memory", "ok", found)


def clock(server_ms: int, before_ms: int, after_ms: int) -> Check:
    """Judge the difference between the two clocks, as far as the round trip lets it be known."""
    off_ms = 0
    if server_ms < before_ms:
        off_ms = server_ms - before_ms
    elif server_ms > after_ms:
        off_ms = server_ms - after_ms
    trip_ms = after_ms - before_ms
    found = f"Redis is {abs(off_ms):,} ms {'ahead' if off_ms > 0 else 'behind'}" if off_ms else "no difference"
    found += f", answers in {trip_ms} ms" if trip_ms else ", answers at once"
    if abs(off_ms) >= _CLOCK_WARNING_MS:
        verdict: Verdict = "failure" if abs(off_ms) >= _CLOCK_FAILURE_MS else "warning"
        return Check("clock", verdict, found, "synchronise the clocks (NTP): due times follow the server's")
    if trip_ms > _SLOW_MS:
        return Check("clock", "warning", found, "each enqueue takes a round trip: move closer to Redis")
    return Check("clock", "ok", found)


def replicas(replication: Facts, cluster: Facts) -> Check:
    """Judge the server's role."""
    if cluster.get("cluster_enabled") == "1":
        return Check(
            "replication", "failure", "cluster mode", "use a single master: queues of one app are spread over slots"
        )
    role, count = replication.get("role", "unknown"), int(replication.get("connected_slaves", 0))
    if role != "master":
        return Check("replication", "failure", f"this is a {role}", "give the URL of the master")
    return Check("replication", "ok", f"master, {count} replica{'s' if count != 1 else ''}")


def connections(clients: Facts) -> Check:
    """Judge how many connections are left."""
    count, most = int(clients.get("connected_clients", 0)), int(clients.get("maxclients", 0))
    if most and count > _CROWDED * most:
        return Check("connections", "warning", f"{count:,} of {most:,}", "raise maxclients")
    return Check("connections", "ok", f"{count:,}" + (f" of {most:,}" if most else ""))
