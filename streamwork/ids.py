"""Identifiers: time-ordered task ids and random process ids."""

from __future__ import annotations

import os

from streamwork.clock import SYSTEM_CLOCK

_random = os.urandom
_now_ms = SYSTEM_CLOCK.now_ms


def new_task_id() -> str:
    """Return a fresh UUIDv7 (RFC 9562) as 32 hex digits; ids made later sort later, to the millisecond.

    74 bits come from the operating system, so forked processes never share a sequence (rule 2).
    """
    tail = int.from_bytes(_random(10), "big")
    return f"{_now_ms():012x}7{tail >> 68 & 0xFFF:03x}{0x8000 | tail >> 52 & 0x3FFF:04x}{tail & 0xFFFFFFFFFFFF:012x}"


def task_id_at_ms(task_id: str) -> int | None:
    """Return the instant a task id was made, or None if it is not a UUIDv7."""
    digits = task_id.replace("-", "")
    if len(digits) != 32 or digits[12] != "7":
        return None
    try:
        return int(digits[:12], 16)
    except ValueError:
        return None


def random_id(bits: int = 96) -> str:
    """Return a random id in hex; 96 bits for senders (rule 1), fewer where only one host must be told apart."""
    return _random(bits // 8).hex()
