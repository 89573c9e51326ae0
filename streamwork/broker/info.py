"""What a Redis server says of itself, and what that means for queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamwork.store.commands import Command, plain

KEEPS_ALL = "noeviction"
# Above it the maintainer trims early (protocol rule 32).
NEARLY_FULL = 0.85


def info(section: str) -> Command[dict[str, str]]:
    """Return the command that reads one section of INFO as names to texts."""
    return plain("INFO", section, read=parse_info)


def parse_info(reply: Any) -> dict[str, str]:
    """Return an INFO reply as names to texts; lines without a name are headings."""
    text = bytes(reply).decode(errors="replace")
    return dict(line.partition(":")[::2] for line in text.splitlines() if ":" in line and not line.startswith("#"))


def server_name(server: Mapping[str, str]) -> str:
    """Return ``Redis 7.0.15`` or ``Valkey 8.0.1`` from INFO server; Valkey pretends to be a Redis 7.2."""
    if "valkey_version" in server:
        return f"Valkey {server['valkey_version']}"
    return f"Redis {server.get('redis_version', 'of unknown version')}"


def eviction_warning(memory: Mapping[str, str]) -> str:
    """Return what is wrong with the eviction policy in the section ``memory``; empty where nothing is.

    Any other policy than noeviction deletes queues, results and liveness when the server is full, without a word.
    """
    policy = memory.get("maxmemory_policy", "")
    if policy in ("", KEEPS_ALL):
        return ""
    return f"eviction policy is {policy}: when full, Redis deletes task messages; set maxmemory-policy {KEEPS_ALL}"


def is_nearly_full(memory: Mapping[str, str]) -> bool:
    """Whether the section ``memory`` says that there is little left below maxmemory."""
    most = int(memory.get("maxmemory", 0))
    return most > 0 and int(memory.get("used_memory", 0)) > NEARLY_FULL * most
