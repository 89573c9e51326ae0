"""The stored form of an event of a namespace."""

from __future__ import annotations

from typing import Any

import msgspec

from streamwork.errors import DecodeError
from streamwork.wire.message import WIRE_VERSION


class EventRecord(msgspec.Struct, frozen=True, array_like=True):
    """What an entry's ``e`` field holds; as `model.event.Event`."""

    version: int
    type: str
    at_ms: int
    queue: str = ""
    worker: str = ""
    detail: str = ""
    facts: dict[str, Any] = {}


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(EventRecord)


def encode_event(type_: str, at_ms: int, queue: str, worker: str, detail: str, facts: dict[str, Any]) -> bytes:
    """Return an event's bytes."""
    return _encode(EventRecord(WIRE_VERSION, type_, at_ms, queue, worker, detail, facts))


def decode_event(data: bytes) -> EventRecord:
    """Return an event; raises DecodeError."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not an event of this version: {error}") from error
