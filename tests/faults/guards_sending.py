"""Guards of sending, reading and settling: rules 1-10, 20-25, 29, 36, 37."""

from __future__ import annotations

from tests.faults.guard import LUA, Change, Guard

SENDING: dict[str, Guard] = {
    "gate": Guard(
        20,
        "a success counts only if its XACK answers 1",
        (
            Change(
                LUA + "settle.lua",
                "if mine and call('XACK', stream, 'workers', entry) == 1 then",
                "call('XACK', stream, 'workers', entry)\n  if mine then",
            ),
        ),
    ),
}
