"""Guards of history, space and keys: rules 30-34."""

from __future__ import annotations

from tests.faults.guard import LUA, WORKER, Change, Guard

HISTORY: dict[str, Guard] = {
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
        (Change(LUA + "maintain.lua", "local size = keep(place, entry)", "local size = 0"),),
    ),
    "kept first": Guard(
        31,
        "who gives an entry to somebody else looks for its copy first",
        (Change(LUA + "unkeep.lua", "if type(copy) ~= 'string' then", "if true then"),),
    ),
    "early trim": Guard(
        32,
        "history goes whatever the retention says while Redis is nearly full",
        (
            Change(
                WORKER + "upkeep.py", "if is_hasty:\n            return now_ms", "if False:\n            return now_ms"
            ),
        ),
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
    "counted": Guard(
        33,
        "each end is counted by the script that writes it",
        (
            Change(
                LUA + "settle.lua",
                "for lane, n in pairs(settled) do redis.pcall('HINCRBY', KEYS[1], ARGV[5 + lane], n) end\n",
                "",
            ),
        ),
    ),
    "re-checked": Guard(
        33,
        "counters that drifted are put right",
        (Change(LUA + "maintain.lua", "call('HSET', KEYS[4], ARGV[1], string.format('%.0f', added - pending))", ""),),
    ),
    "re-checked in time": Guard(
        33,
        "counters are left alone while nobody can tell",
        (
            Change(
                LUA + "maintain.lua",
                "if #call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1) == 0 then",
                "if true then",
            ),
        ),
    ),
    "reply stream's life": Guard(
        34,
        "a reply stream has a TTL from the start",
        (
            Change(
                LUA + "watch.lua",
                "redis.call('XADD', KEYS[1], '*', 'i', '', 'v', '')\nredis.call('PEXPIRE', KEYS[1], ARGV[1])\n",
                "redis.call('XADD', KEYS[1], '*', 'i', '', 'v', '')\n",
            ),
        ),
    ),
    "reply stream made by its client": Guard(
        34,
        "no end makes a reply stream whose client is gone",
        (
            Change(
                LUA + "settle.lua",
                "'NOMKSTREAM', 'MAXLEN', '~', 10000, '*', 'i', id, 'v', value)",
                "'MAXLEN', '~', 10000, '*', 'i', id, 'v', value)",
            ),
        ),
    ),
    "reply stream's bound": Guard(
        34,
        "a reply stream that nobody reads does not grow",
        (
            Change(
                LUA + "settle.lua",
                "'NOMKSTREAM', 'MAXLEN', '~', 10000, '*', 'i', id, 'v', value)",
                "'NOMKSTREAM', '*', 'i', id, 'v', value)",
            ),
        ),
    ),
    "result's life": Guard(
        34,
        "a result has a TTL",
        (Change(LUA + "settle.lua", "call('SET', result, record, 'PX', keep)", "call('SET', result, record)"),),
    ),
    "sender's life": Guard(
        34,
        "a sender's mark has a TTL",
        (
            Change(
                LUA + "enqueue.lua",
                "call('SET', KEYS[1], number .. '\\n' .. ids, 'PX', ARGV[2])",
                "call('SET', KEYS[1], number .. '\\n' .. ids)",
            ),
        ),
    ),
    "settle mark's life": Guard(
        34,
        "the mark of a consumer's last chunk has a TTL",
        (
            Change(
                LUA + "settle.lua",
                "call('SET', KEYS[12], chunk .. '\\n' .. answer, 'PX', life)",
                "call('SET', KEYS[12], chunk .. '\\n' .. answer)",
            ),
        ),
    ),
    "freed": Guard(
        34,
        "what belongs to a message goes with its end",
        (
            Change(LUA + "finish.lua", "if was_moved then", "if false then"),
            Change(LUA + "finish.lua", "if is_suspect then", "if false then"),
            Change(LUA + "finish.lua", "if has_marks then", "if false then"),
            Change(LUA + "finish.lua", "if is_kept then", "if false then"),
        ),
    ),
}
