"""Guards of schedules: rule 27."""

from __future__ import annotations

from tests.faults.guard import LUA, Guard, guard

PLANNING: dict[str, Guard] = {
    "watermark": guard(
        27,
        "an occurrence that was decided is not decided again, however many processes try",
        (LUA + "fire.lua", "at <= tonumber(mark) or ", ""),
    ),
    "never_early": guard(
        27,
        "an occurrence does not happen before Redis says that it is time, whatever the clock of who fires it says",
        (LUA + "fire.lua", " or at > now)", ")"),
    ),
    "record_unchanged": guard(
        27,
        "who has not heard of a change does not fire what was there before it",
        (LUA + "fire.lua", "if not record or redis.sha1hex(record) ~= ARGV[2] then", "if not record then"),
    ),
}
