"""One sample of everything that is stored; `python -m tests.wire.samples` adds those that the golden file lacks.

Bytes that a golden file has are never written again: they are in people's Redis.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from streamwork.wire import message as wire

FOLDER = Path(__file__).resolve().parent / "golden"
ID = "0198c0ffee007abc8def0123456789ab"

FAILURE = wire.Failure("pkg.errors.Broken", "no – such thing", "Traceback (most recent call last):\n  …\n")
OPTIONS = wire.Options(
    timeout_ms=1_500, keep_ms=0, retry=(5, 0.5, 2.0, 60.0, False), replay_of=ID[::-1], headers={"traceparent": "00-1"}
)
ARGS, KWARGS = msgspec.msgpack.encode([7, "a@b.c", None]), msgspec.msgpack.encode({"width": 640})
PAST = wire.Attempt(attempt=3, crashes=1, lost=2, round=4, deferrals=5)

# Name → (what it is, its bytes as this version writes them, its reader).
SAMPLES = {
    "message": (
        wire.TaskMessage(1, ID, "shop.send", msgspec.Raw(ARGS), wire.NO_KWARGS, None, None),
        lambda: wire.encode_message(ID, "shop.send", ARGS, None, wire.NO_OPTIONS, None),
        wire.decode_message,
    ),
    "message with all": (
        wire.TaskMessage(1, ID, "shop.send", msgspec.Raw(ARGS), msgspec.Raw(KWARGS), OPTIONS, "c0ffee"),
        lambda: wire.encode_message(ID, "shop.send", ARGS, KWARGS, OPTIONS, "c0ffee"),
        wire.decode_message,
    ),
    "message with one option": (
        wire.TaskMessage(1, ID, "s", msgspec.Raw(ARGS), wire.NO_KWARGS, wire.Options(keep_ms=5), "c"),
        lambda: wire.encode_message(ID, "s", ARGS, None, wire.Options(keep_ms=5), "c"),
        wire.decode_message,
    ),
    "message without a limit": (
        wire.TaskMessage(1, ID, "s", msgspec.Raw(ARGS), wire.NO_KWARGS, wire.Options(timeout_ms=0), "c"),
        lambda: wire.encode_message(ID, "s", ARGS, None, wire.Options(timeout_ms=0), "c"),
        wire.decode_message,
    ),
    "message with a soft limit": (
        wire.TaskMessage(1, ID, "s", msgspec.Raw(ARGS), wire.NO_KWARGS, wire.Options(timeout_ms=9, soft_ms=7), "c"),
        lambda: wire.encode_message(ID, "s", ARGS, None, wire.Options(timeout_ms=9, soft_ms=7), "c"),
        wire.decode_message,
    ),
    "attempt": (PAST, lambda: wire.encode_attempt(PAST).encode(), wire.decode_attempt),
    "result": (
        wire.Result("consumer/1-0/1", "succeeded", b"\x07\n\x00"),
        lambda: wire.encode_result("consumer/1-0/1", "succeeded", b"\x07\n\x00"),
        wire.decode_result,
    ),
    "failure": (FAILURE, lambda: wire.encode_record(FAILURE), wire.decode_failure),
    "journal": (
        wire.JournalRecord(1, ID, "shop.send", "retried", "1:eu,gpu", b"1700-3", 2, "host-1-a", 1_700, 1_800, "OS"),
        lambda: wire.encode_record((
            1, ID, "shop.send", "retried", "1:eu,gpu", b"1700-3", 2, "host-1-a", 1_700, 1_800, "OS",
        )),
        wire.decode_journal,
    ),
    "journal of a success": (
        wire.JournalRecord(
            1, ID, "shop.send", "succeeded", "1:", b"1700-3", 1, "host-1-a", 1_700, 1_800, "", 0, 17
        ),
        lambda: wire.encode_record((
            1, ID, "shop.send", "succeeded", "1:", b"1700-3", 1, "host-1-a", 1_700, 1_800, "", 0, 17,
        )),
        wire.decode_journal,
    ),
    "journal with all": (
        wire.JournalRecord(
            1, ID, "shop.send", "dead", "1:eu", b"1700-3", 3, "host-1-a", 1_700, 1_800, "failed: OSError: no", 2, 0,
            "OSError", "c0ffeec0ffee", ID[::-1], "4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        lambda: wire.encode_record((
            1, ID, "shop.send", "dead", "1:eu", b"1700-3", 3, "host-1-a", 1_700, 1_800, "failed: OSError: no", 2, 0,
            "OSError", "c0ffeec0ffee", ID[::-1], "4bf92f3577b34da6a3ce929d0e0e4736",
        )),
        wire.decode_journal,
    ),
    "dead letter": (
        wire.DeadLetter(1, ID, "shop.send", "1:", "quarantined", FAILURE, "1,3,0,1,0", 1_900, b"\x97body"),
        lambda: wire.encode_record((
            1, ID, "shop.send", "1:", "quarantined", FAILURE, "1,3,0,1,0", 1_900, b"\x97body",
        )),
        wire.decode_dead_letter,
    ),
    "dead letter with limits": (
        wire.DeadLetter(1, ID, "shop.send", "1:", "failed", FAILURE, "1,0,0,2,0", 1_900, b"\x97body", b"\x90"),
        lambda: wire.encode_record(
            wire.DeadLetter(1, ID, "shop.send", "1:", "failed", FAILURE, "1,0,0,2,0", 1_900, b"\x97body", b"\x90")
        ),
        wire.decode_dead_letter,
    ),
    "journal of a later round": (
        wire.JournalRecord(
            1, ID, "shop.send", "succeeded", "1:", b"1700-3", 1, "host-1-a", 1_700, 1_800, "", 0, 17, round=2
        ),
        lambda: wire.encode_record((
            1, ID, "shop.send", "succeeded", "1:", b"1700-3", 1, "host-1-a", 1_700, 1_800, "", 0, 17, "", "", "", "", 2,
        )),
        wire.decode_journal,
    ),
}  # fmt: skip


def golden(version):
    """Return the stored bytes of a version, by name."""
    return msgspec.msgpack.decode((FOLDER / f"v{version}.bin").read_bytes(), type=dict[str, bytes])


def main():
    path = FOLDER / f"v{wire.WIRE_VERSION}.bin"
    known = golden(wire.WIRE_VERSION) if path.exists() else {}
    path.write_bytes(msgspec.msgpack.encode({name: write() for name, (_, write, _) in SAMPLES.items()} | known))


if __name__ == "__main__":
    main()
