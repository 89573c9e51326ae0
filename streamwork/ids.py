"""Identifiers: time-ordered task ids and random process ids."""

from __future__ import annotations

import os

from streamwork.clock import SYSTEM_CLOCK

_random = os.urandom
_now_ms = SYSTEM_CLOCK.now_ms
# RFC 9562: 48 bits of time, version, 12 random bits, variant, 62 random bits.
_VERSION_7, _VARIANT_2 = 0x7 << 76, 0x2 << 62
_RANDOM_A, _RANDOM_B = 0xFFF << 62, (1 << 62) - 1


def new_task_id() -> str:
    """Return a fresh UUIDv7 (RFC 9562) as 32 hex digits; ids made later sort later, to the millisecond.

    74 bits come from the operating system, so forked processes never share a sequence (rule 2).
    """
    tail = int.from_bytes(_random(10), "big")
    return f"{_now_ms() << 80 | _VERSION_7 | (tail & _RANDOM_A) << 2 | _VARIANT_2 | tail & _RANDOM_B:032x}"


def new_task_ids(count: int) -> list[str]:
    """Return fresh ids as `new_task_id` makes them, with one call to the operating system for all."""
    data = _random(10 * count)
    head = _now_ms() << 80 | _VERSION_7 | _VARIANT_2
    tails = [int.from_bytes(data[at : at + 10], "big") for at in range(0, 10 * count, 10)]
    return [f"{head | (tail & _RANDOM_A) << 2 | tail & _RANDOM_B:032x}" for tail in tails]


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
