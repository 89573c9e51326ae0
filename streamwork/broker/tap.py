"""One way through what comes onto the lanes of a queue, beside its workers (rule 30).

The group that remembers the place is in Redis; here is only what is needed to make it again where it was lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streamwork.broker.bodies import said
from streamwork.broker.inspect import order
from streamwork.broker.stats import readable
from streamwork.broker.steps import Steps
from streamwork.broker.trimmed import read_notes
from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import DecodeError
from streamwork.model.lane import lane_tags
from streamwork.model.tap import TapGap, TapMessage
from streamwork.store.commands import Command, plain
from streamwork.store.keys import QueueKeys
from streamwork.store.tapping import Tapped, tap, tap_read, untap
from streamwork.wire.message import FIRST_ATTEMPT, decode_attempt, decode_message

# Of one read: some milliseconds of Redis, and no more than a program may lose that ends within them.
MOST, MOST_BYTES = 100, 1_048_576
# The longest wait for what comes next; a stop is heard in between.
BELL_MS = 2_000

Found = list[TapMessage | TapGap]


class TapReading:
    """A tap, as one process reads it; several may share one, and each message comes to one of them.

    Args:
        keys: The queue.
        name: The tap's, from which its group has its name.
        since_ms: From when on a new one reads, as far as that is kept; None = from now on.

    Attributes:
        is_at_end: Nothing more was there at the last page.
        keys: Of the queue.
    """

    def __init__(self, keys: QueueKeys, name: str, since_ms: int | None) -> None:
        self.keys, self._name, self.is_at_end = keys, name, False
        self._since = "$" if since_ms is None else _behind(since_ms)
        self._lanes: list[str] = []
        self._count = -1
        # By lane, up to where was read.
        self._read: dict[str, bytes] = {}

    def join(self) -> Steps[None]:
        """Make the group on each lane that has none."""
        (known,) = yield [plain("HKEYS", self.keys.lanes)]
        self._count, self._lanes = len(known), sorted(readable(known), reverse=True)
        lanes = {lane: self._read.get(lane, b"") for lane in self._lanes}
        yield [tap(self.keys, self._name, lanes, self._since, SYSTEM_CLOCK.now_ms())]

    def page(self, most: int = MOST) -> Steps[Found]:
        """Read what has come since, `most` messages at most; what a lost answer has told is not told again."""
        if self._count < 0:
            yield from self.join()
        (read,) = yield [tap_read(self.keys, self._name, self._lanes, most, MOST_BYTES)]
        if read.tapped is None:  # removed after a day, or a lane was lost and made anew
            yield from self.join()
            (read,) = yield [tap_read(self.keys, self._name, self._lanes, most, MOST_BYTES)]
        found: Found = []
        for lane, tapped in zip(self._lanes, read.tapped or (), strict=False):
            found += self._told(lane, tapped)
        if read.tapped is None or read.lanes != self._count:
            self._count = -1  # a lane is new
        self.is_at_end = not found and self._count >= 0
        return found

    def bell(self) -> Command[Any]:
        """Return the command that waits until something more is there, `BELL_MS` at most."""
        # A new lane is told in the control stream; a tap is late by a bell at most where that signal is lost.
        streams = [*map(self.keys.lane, self._lanes), self.keys.control]
        places: list[bytes | str] = [*(self._read.get(lane, b"0") for lane in self._lanes), "$"]
        return plain("XREAD", "COUNT", 1, "BLOCK", BELL_MS, "STREAMS", *streams, *places)

    def _told(self, lane: str, tapped: Tapped) -> Found:
        if tapped.position:
            self._read[lane] = tapped.rows[-1][0] if tapped.rows else tapped.position
        gaps: Found = [self._gap(lane, tapped)] if tapped.missed else []
        return gaps + [_message(self.keys.queue, lane, entry, fields) for entry, fields in tapped.rows]

    def _gap(self, lane: str, tapped: Tapped) -> TapGap:
        since_ms = order(tapped.position)[0] or None
        note = read_notes([lane.encode(), tapped.note]).get(lane) if tapped.note else None
        until_ms = order(tapped.rows[0][0])[0] if tapped.rows else note.place[0] if note else SYSTEM_CLOCK.now_ms()
        return TapGap(
            queue=self.keys.queue, lane=lane, missed=tapped.missed, since_ms=since_ms,
            until_ms=max(until_ms, since_ms or 0), trimmed_at_ms=note.at_ms if note else None,
            why=note.why if note else "",
        )  # fmt: skip


def _behind(since_ms: int) -> str:
    # A group stands behind an id, and what has come at the instant itself is asked for.
    return f"{since_ms - 1}-{2**64 - 1}" if since_ms > 0 else "0"


def _message(queue: str, lane: str, entry: bytes, fields: list[bytes]) -> TapMessage:
    field = dict(zip(fields[::2], fields[1::2], strict=True))
    body, attempt = field.get(b"d", b""), FIRST_ATTEMPT
    try:
        attempt = decode_attempt(field[b"a"]) if b"a" in field else FIRST_ATTEMPT
        message = decode_message(body)
    except DecodeError:
        message = None  # workers bury it
    asked = said(body) if message is not None else None
    return TapMessage(
        queue=queue, lane=lane, tags=tuple(sorted(lane_tags(lane))), entry=entry.decode(),
        id=message.id if message else "", task=message.task if message else "", attempt=attempt.attempt,
        round=attempt.round, crashes=attempt.crashes, enqueued_at_ms=order(entry)[0],
        replay_of=asked.replay_of if asked else "", args=asked.args if asked else None,
        kwargs=asked.kwargs if asked else {}, body=body,
    )  # fmt: skip


def remove(keys: QueueKeys, name: str) -> Steps[bool]:
    """Remove a tap, whoever uses it; answers whether there was one."""
    (known,) = yield [plain("HKEYS", keys.lanes)]
    (was,) = yield [untap(keys, name, readable(known), only_dead=False)]
    return bool(was)


def taps(fields: Iterable[bytes]) -> list[str]:
    """Return the names of taps in the fields of the hash of them."""
    return sorted(field.decode() for field in fields if b" " not in field)
