"""Guards of liveness, reclaim, history, processes and loops: rules 11-19, 30-34, 38, 39."""

from __future__ import annotations

from tests.faults.guard import LUA, WORKER, Change, Guard

LIVING: dict[str, Guard] = {
    "safe cut": Guard(
        30,
        "the trim ends below the oldest pending and the first undelivered entry",
        (
            Change(
                LUA + "maintain.lua",
                "local cut = less(ARGV[2], safe) and ARGV[2] or safe",
                "local cut = ARGV[2]",
            ),
        ),
    ),
    "bound by workers": Guard(
        30,
        "only the group of workers bounds the trim",
        (Change(LUA + "maintain.lua", "if g['name'] == 'workers' then", "if true then"),),
    ),
    "kept": Guard(
        31,
        "pending entries older than retention do not hold back a large lane's history",
        (Change(LUA + "maintain.lua", "local is_large = ARGV[2] ~= '0'", "local is_large = false"),),
    ),
    "kept copy": Guard(
        31,
        "an entry that holds nothing back any more has its body copied",
        (Change(LUA + "maintain.lua", "or not keep(place, entry) then", "then"),),
    ),
    "kept first": Guard(
        31,
        "who gives an entry to somebody else looks for its copy first",
        (Change(LUA + "unkeep.lua", "if type(copy) ~= 'string' then", "if true then"),),
    ),
    "early trim": Guard(
        32,
        "history goes whatever the retention says while Redis is nearly full",
        (Change(WORKER + "upkeep.py", "oldest_ms = now_ms if self._is_hasty else", "oldest_ms ="),),
    ),
    "trim when full": Guard(
        32,
        "the maintainer's first write is one that a full Redis takes",
        (Change(LUA + "maintain.lua", "call('PERSIST', KEYS[2])\n", ""),),
    ),
    "dropped results": Guard(
        32,
        "large results are not kept while Redis is nearly full",
        (Change(LUA + "settle.lua", "if not is_nearly_full or", "if true or"),),
    ),
}
