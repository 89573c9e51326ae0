"""Shared memory between a supervisor and one of its processes: stamps, and what each slot has started.

It outlives the process, so after a crash the supervisor still knows what was running (rule 17).
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

from streamwork.telemetry.last_lines import LastLines

# beat, loop turn and read reply as steady ms; free slots; rss is read from /proc instead.
_HEADER = struct.Struct("<qqqq")
# 1 = started, number of the queue, entry id, lane name. 255 bytes hold a lane of twenty long tags.
_SLOT = struct.Struct("<BH44s255s")
_BASE = 64
# A row is taken until its outcome is written: a slot each for what runs, twice as many for what is unsent (rule 24),
# and a slot each for what was read meanwhile.
ROWS_PER_SLOT = 4


class Started(NamedTuple):
    """One delivery that a process had started."""

    queue_number: int
    entry: bytes
    lane: str


class SlotTable:
    """One process's table; made before the fork, so both sides see the same memory.

    Args:
        slots: How many deliveries may run at once; there are `ROWS_PER_SLOT` times as many rows.

    Attributes:
        last_lines: What the process logged last.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, _BASE + self.rows * _SLOT.size)
        self.last_lines = LastLines()
        self._pack = _SLOT.pack_into
        self._size = _SLOT.size

    @property
    def rows(self) -> int:
        """How many deliveries can be noted."""
        return self.slots * ROWS_PER_SLOT

    def start(self, slot: int, queue_number: int, entry: bytes, lane: bytes) -> None:
        """Note in a row that a delivery is started; before its body is."""
        self._pack(self._memory, _BASE + slot * self._size, 1, queue_number, entry, lane)

    def clear(self, slot: int) -> None:
        """Note that a row is free: its delivery's outcome is written, or it was given back."""
        self._memory[_BASE + slot * self._size] = 0

    def started(self) -> list[Started]:
        """Return what runs, or ran when the process died, and what has ended with its outcome not yet written."""
        found: list[Started] = []
        if self._memory.closed:
            return found
        for slot in range(self.rows):
            flag, queue_number, entry, lane = _SLOT.unpack_from(self._memory, _BASE + slot * self._size)
            if flag:
                found.append(Started(queue_number, entry.rstrip(b"\0"), lane.rstrip(b"\0").decode()))
        return found

    def _stamp(self, place: int, at_ms: int) -> None:
        if self._memory.closed:  # the process is dead, and a beat for it was still on its way
            return
        struct.pack_into("<q", self._memory, place * 8, at_ms)

    def _stamped(self, place: int) -> int:
        return 0 if self._memory.closed else int(struct.unpack_from("<q", self._memory, place * 8)[0])

    @property
    def beat_at_ms(self) -> int:
        """When the last good beat was sent, steady ms; 0 = never. A process reads only while it is young (rule 12)."""
        return self._stamped(0)

    @beat_at_ms.setter
    def beat_at_ms(self, at_ms: int) -> None:
        self._stamp(0, at_ms)

    @property
    def loop_at_ms(self) -> int:
        """When the process's loop last turned, steady ms; 0 = not yet."""
        return self._stamped(1)

    @loop_at_ms.setter
    def loop_at_ms(self, at_ms: int) -> None:
        self._stamp(1, at_ms)

    @property
    def read_at_ms(self) -> int:
        """When the process last had an answer to a read, or had no reason to read, steady ms; 0 = not yet."""
        return self._stamped(2)

    @read_at_ms.setter
    def read_at_ms(self, at_ms: int) -> None:
        self._stamp(2, at_ms)

    @property
    def free_slots(self) -> int:
        """Slots free at the last stamp."""
        return self._stamped(3)

    @free_slots.setter
    def free_slots(self, count: int) -> None:
        self._stamp(3, count)

    def close(self) -> None:
        """Free the memory on this side."""
        self._memory.close()
        self.last_lines.close()
