"""The stored messages that journal records speak of, read from their lane entries while those are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamwork.broker.steps import Steps
from streamwork.errors import DecodeError, WireError
from streamwork.model.lane import is_lane
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.codec import unpacker
from streamwork.wire.message import JournalRecord, decode_message

# A message may have a megabyte: one round asks for what 256 KB hold by what came so far, and all of them together end
# at 4 MB, so that memory stays flat whatever is stored.
_FIRST, _MOST_AT_ONCE, _ROUND_BYTES, MOST_BYTES = 10, 250, 262_144, 4_194_304

_anything = unpacker(Any)


class Said(NamedTuple):
    """What a message asked for: its arguments in their plain form, what it repeats, and all of it as stored."""

    args: list[Any]
    kwargs: dict[str, Any]
    replay_of: str
    body: bytes


def read_bodies(keys: QueueKeys, records: Sequence[JournalRecord]) -> Steps[list[bytes | None]]:
    """Read the stored messages of records, in their order; None where the entry is gone.

    Answers for fewer records than asked where they are large, for one at least.
    """
    found: list[bytes | None] = []
    total, count = 0, _FIRST
    while len(found) < len(records) and total < MOST_BYTES:
        some = records[len(found) : len(found) + count]
        answers = yield [_look(keys, record) for record in some]
        for rows in answers:
            body = _body(rows[0][1]) if rows else None
            total += len(body or b"")
            found.append(body)
        count = min(_MOST_AT_ONCE, max(1, _ROUND_BYTES * len(found) // max(1, total)))
    return found


def _look(keys: QueueKeys, record: JournalRecord) -> Any:
    # What never was on a lane, or was written by a stranger, is asked for where nothing can be.
    lane, entry = (record.lane, record.entry) if is_lane(record.lane) and _is_entry(record.entry) else ("0:", b"0-1")
    return plain("XRANGE", keys.lane(lane), entry, entry, "COUNT", 1)


def _is_entry(entry: bytes) -> bool:
    ms, dash, seq = entry.partition(b"-")
    return bool(dash) and ms.isdigit() and seq.isdigit() and len(entry) <= 40


def _body(fields: list[bytes]) -> bytes | None:
    return next((value for name, value in zip(fields[::2], fields[1::2], strict=True) if name == b"d"), None)


def said(body: bytes) -> Said | None:
    """Return what a stored message asks for, or None for one that this version cannot read."""
    try:
        message = decode_message(body)
        args, kwargs = _anything(bytes(message.args)), _anything(bytes(message.kwargs)) or {}
    except (DecodeError, WireError):
        return None
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return None
    replay_of = message.options.replay_of if message.options is not None else None
    return Said(args, kwargs, replay_of or "", body)
