"""What the maintainer has trimmed of a queue's history, as it noted it, and the gaps that this leaves to a reader."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from streamwork.broker.inspect import order
from streamwork.broker.steps import Steps, texts
from streamwork.model.history import HistoryGap, HistoryRecord
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys

# The field of `trimmed` that speaks of the journal; the others are named after lanes, which begin with a digit.
JOURNAL = "journal"

Place = tuple[int, int]


class Note(NamedTuple):
    """What a stream lost: everything below a place, at an instant, by a setting or for another reason.

    Attributes:
        place: The first id that may still be there.
        at_ms: When something went last.
        why: As the maintainer says it.
    """

    place: Place
    at_ms: int
    why: str


def read_notes(reply: Any) -> dict[str, Note]:
    """Return the notes of a HGETALL reply by stream; what cannot be read is left out."""
    found = {}
    for stream, text in texts(reply).items():
        parts = text.split(" ", 2)
        try:
            found[stream] = Note(order(parts[0].encode()), int(parts[1]), parts[2])
        except (ValueError, IndexError):
            continue
    return found


def attempts_gap(queue: str, note: Note, stands: Place, until_ms: int | None) -> HistoryGap:
    """Return the gap between where a reader stands and what a note says is kept."""
    end_ms = note.place[0] if until_ms is None else min(until_ms, note.place[0])
    return HistoryGap(
        queue=queue, what="attempts", since_ms=stands[0], until_ms=end_ms, trimmed_at_ms=note.at_ms, why=note.why
    )


def arguments_gap(record: HistoryRecord, notes: Mapping[str, Note]) -> HistoryGap:
    """Return the gap that begins with a record whose entry is gone."""
    enqueued_at_ms, note = record.enqueued_at_ms or 0, notes.get(record.lane)
    return HistoryGap(
        queue=record.queue,
        what="arguments",
        lane=record.lane,
        since_ms=enqueued_at_ms,
        until_ms=enqueued_at_ms if note is None else max(note.place[0], enqueued_at_ms),
        trimmed_at_ms=None if note is None else note.at_ms,
        why="" if note is None else note.why,
    )


def shown(at_ms: int) -> str:
    """Return an instant as it stands in error texts."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def trimmed_up_to_ms(keys: QueueKeys) -> Steps[int]:
    """Return up to when a queue's history is not whole any more, of its journal or any of its lanes; 0 = it is."""
    (reply,) = yield [plain("HGETALL", keys.trimmed)]
    return max((note.place[0] for note in read_notes(reply).values()), default=0)
