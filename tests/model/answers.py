"""Which answers each script can give, by kinds: what the model must have seen before one may say that it tries them."""

from __future__ import annotations

import hiredis


def _sent(reply, is_dirty):
    return "in" if is_dirty else "again"


def _settled(reply, is_dirty):
    if not is_dirty:
        return "lost" if reply else "again"
    return "some lost" if reply else "committed"


def _promoted(reply, is_dirty):
    return "unknown lane" if reply[2] else "moved" if reply[0] else "nothing"


def _pulsed(reply, is_dirty):
    return ("standing by", "on duty", "lapsed")[reply[0] + reply[1]]


def _taken(reply, is_dirty):
    return {-2: "alive", -1: "grace", 0: "nothing"}.get(reply, "marked")


def _restored(reply, is_dirty):
    return "changed" if reply[0] == b"changed" else "given back" if reply[1] else "all settled"


def _healed(reply, is_dirty):
    if reply.startswith(b"gone"):
        return "gone"
    return {b"there": "there", b"0": "from the start"}.get(reply, "from the mark")


def _maintained(reply, is_dirty):
    return "trimmed" if reply[0] else "kept" if reply[1] else "no group"


def _number(*names):
    return lambda reply, is_dirty: names[min(reply, len(names) - 1)]


def _word(reply, is_dirty):
    return reply.decode()


_READERS = {
    "enqueue": (_sent, "in", "again"),
    "schedule": (_sent, "in", "again"),
    "settle": (_settled, "committed", "some lost", "lost", "again"),
    "promote": (_promoted, "nothing", "moved", "unknown lane"),
    "register": (_number("", "registered"), "registered"),
    "revive": (_word, "ok", "revived", "fenced"),
    "pulse": (_pulsed, "standing by", "on duty", "lapsed"),
    "take": (_taken, "alive", "grace", "nothing", "marked"),
    "release": (_number("nothing", "given back"), "nothing", "given back"),
    "adopt": (lambda reply, is_dirty: "rows" if reply else "nothing", "rows", "nothing"),
    "drop_consumer": (_number("owns", "dropped"), "owns", "dropped"),
    "heal": (_healed, "there", "from the start", "from the mark", "gone"),
    "restore": (_restored, "changed", "given back", "all settled"),
    "trim": (_number("nothing", "trimmed"), "nothing", "trimmed"),
    "maintain": (_maintained, "trimmed", "kept", "no group"),
    "cancel": (_word, "cancelled", "requested", "ended"),
}
# Left out: ENQUEUE-GAP, which takes a server that was rolled back, and refusals of keys that are not ours.
# What the model's parties never call: a look of people, and the reply streams of those who wait.
# Limits, schedules and pauses are not in the model; tests/redis has walks over limits.
NOT_CALLED = {"look", "watch", "submit", "begin", "sweep", "fire", "plan", "pause", "unhold", "import"} | {
    "dead_edit", "dead_purge", "dead_retry", "tap", "tap_read", "untap", "announce",
}  # fmt: skip
EXPECTED = {(name, kind) for name, (_, *kinds) in _READERS.items() for kind in kinds}


def kind_of(name, reply, is_dirty):
    """Return (script, kind of its answer); an error by its first word."""
    if isinstance(reply, hiredis.ReplyError):
        return name, str(reply).partition(" ")[0]
    return name, _READERS[name][0](reply, is_dirty)
