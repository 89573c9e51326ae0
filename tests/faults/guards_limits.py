"""Guards of limits in the scripts around flow.lua: what is sent, begun, promoted, cancelled and ended (rule 28)."""

from __future__ import annotations

from tests.faults.guard import LUA, Guard, guard

SUBMIT, BEGIN, SETTLE = LUA + "submit.lua", LUA + "begin.lua", LUA + "settle.lua"
CANCEL, PROMOTE = LUA + "cancel.lua", LUA + "promote.lua"

LIMITS: dict[str, Guard] = {
    "submit_asks": guard(
        28,
        "who is sent to a lane has a permit first",
        (SUBMIT, "local lacks, keeps = flow.admit(k, limits, now, '')", "local lacks, keeps = nil, ''"),
    ),
    "submit_places": guard(
        28,
        "what is on a lane is known to hold its permits, so that its end frees them",
        (SUBMIT, "flow.placed(id, packed, lane .. '/' .. entry)", ""),
    ),
    "submit_keeps_limits": guard(
        28,
        "what waits in a line keeps its limits, so that it can be woken",
        (SUBMIT, "flow.placed(id, packed, keeps)", ""),
    ),
    "name_taken": guard(
        28,
        "of a kind that is unique one is there",
        (SUBMIT, "if owner and policy == 'c' then return '=' .. owner end", ""),
    ),
    "name_refused": guard(
        28,
        "also where the other one is to be refused",
        (SUBMIT, "if owner and policy == 'r' then return '!' .. owner end", ""),
    ),
    "name_replaced": guard(
        28,
        "also where the later one goes in the other's place",
        (SUBMIT, "call('HSET', KEYS[5], replaced, id)", ""),
    ),
    "name_of_the_gone": guard(
        28,
        "a name whose owner is nowhere is free",
        (SUBMIT, "return flow.is_known(k, id) and id or nil", "return id"),
    ),
    "limited_numbers": guard(
        1,
        "a chunk with limits that is sent again is answered, and not sent twice",
        (SUBMIT, "if before == number then return string.sub(mark, cut + 1) end", ""),
        (SUBMIT, "if number ~= before + 1 then", "if number > before + 1 then"),
    ),
    "limited_gap": guard(
        1,
        "a late copy of an older chunk is refused",
        (SUBMIT, "if number ~= before + 1 then", "if number > before + 1 then"),
    ),
    "limited_refused_whole": guard(
        3,
        "a full Redis refuses what has limits, also where a window forgets its starts first",
        (SUBMIT, "flow.reserve(k, (last - 5 - lanes) / 6)\n", ""),
    ),
    "limited_types_first": guard(
        21,
        "a key of another type among those of limits is found before anything is written",
        (SUBMIT, "if foreign then error('ENQUEUE-TYPE ' .. foreign) end", ""),
    ),
    "begin_owner": guard(
        28,
        "who has lost a delivery spends no token for it",
        (BEGIN, "if handed[entry] ~= tonumber(ARGV[a + 2]) then", "if false then"),
    ),
    "begin_count": guard(
        28,
        "nor does an earlier delivery to the same consumer",
        (BEGIN, "if handed[entry] ~= tonumber(ARGV[a + 2]) then", "if not handed[entry] then"),
    ),
    "begin_asks_anew": guard(
        28,
        "what started and crashed asks for another token",
        (BEGIN, "local lacks = flow.admit(k, limits, now, records[n] and records[n][3] or '')", "local lacks = nil"),
    ),
    "begin_spends": guard(
        28,
        "a token that a start has used does not come back at the end",
        (BEGIN, "flow.spend(k, id, limits, now)\n", "\n"),
    ),
    "begin_notes": guard(
        28,
        "who has used its token is known to have none",
        (BEGIN, "flow.placed(id, records[n][2], records[n][3])", ""),
    ),
    "set_aside_frees": guard(
        28,
        "what waits for a rate holds no place of another limit",
        (BEGIN, "      flow.free(k, {id}, true)\n", ""),
    ),
    "set_aside_once": guard(
        28,
        "what waits for a rate is on its lane no longer (I1)",
        (BEGIN, "call('XACK', KEYS[1], 'workers', entry)", ""),
    ),
    "set_aside_counted": guard(
        28,
        "nor in the counts of its lane",
        (BEGIN, "redis.pcall('HINCRBY', KEYS[18], ARGV[2], 1)", ""),
    ),
    "set_aside_place": guard(
        28,
        "nor under the place that a promotion gave it, which nobody would free",
        (BEGIN, "call('HDEL', k.moved, id)", ""),
    ),
    "end_frees": guard(
        28,
        "every end gives back what its message holds",
        (LUA + "finish.lua", "if ended then ended[#ended + 1] = id else flow.free(k, {id}, is_retry) end", ""),
    ),
    "success_frees": guard(
        28,
        "so does a plain success, of which nothing else is to be freed",
        (SETTLE, "or has_kept or k.has_flow then", "or has_kept then"),
    ),
    "retry_is_no_end": guard(
        28,
        "a retry keeps its turn in a strict order",
        (SETTLE, "was_moved, has_suspects, false, has_kept, true)", "was_moved, has_suspects, false, has_kept)"),
    ),
    "end_where_foreign": guard(
        21,
        "an end counts whole whatever stands where limits are kept",
        (SETTLE, "k.has_flow = flow and not flow.foreign(k)", "k.has_flow = flow ~= nil"),
    ),
    "cancel_leaves_the_line": guard(
        25,
        "what is cancelled in a line waits no longer",
        (CANCEL, "or (parked and flow.leave(k, id, parked)) then", "or parked then"),
    ),
    "cancel_frees": guard(
        28,
        "what is cancelled gives back what it holds",
        (CANCEL, "finish(k, id, nil, false, false, true)", "call('HDEL', k.cancelled, id)"),
    ),
    "cancel_types_first": guard(
        21,
        "a cancel that cannot free what is held is refused before it has removed anything",
        (CANCEL, "if foreign then error('CANCEL-TYPE ' .. foreign) end", ""),
    ),
    "promote_asks": guard(
        28,
        "what was due asks for its permits when it goes to its lane",
        (PROMOTE, "local lacks, keeps = flow.admit(k, record[1], us, record[3])", "local lacks, keeps"),
    ),
    "promote_parks_once": guard(
        28,
        "what then waits in a line is due no longer (I1)",
        (PROMOTE, "keeps)\n  call('ZREM', KEYS[1], id)\n  call('HDEL', KEYS[2], id)\n", "keeps)\n"),
    ),
    "promote_keeps_turn": guard(
        28,
        "what has its turn in a strict order and lacks something else is known to have it",
        (PROMOTE, "flow.placed(id, record[2], keeps)", ""),
    ),
    "promote_places": guard(
        28,
        "what was promoted is known to be on its lane, so that nobody takes it for lost",
        (PROMOTE, "if has_flow and records[n] then flow.placed(id, records[n][2], lane .. '/' .. entry) end", ""),
    ),
    "promote_puts_back": guard(
        28,
        "what its lane does not take has its permits all the same, and asks for no others",
        (PROMOTE, "if has_flow and records[n] then flow.placed(id, records[n][2], '*') end", ""),
    ),
    "promote_wakes": guard(
        28,
        "who waits for a token goes on once time has brought it",
        (PROMOTE, "flow.wake(k, woken[n], us)", ""),
    ),
    "promote_tells_when": guard(
        28,
        "the promoter does not sleep past the next token",
        (PROMOTE, "if at and (not next_at or at < tonumber(next_at)) then", "if false then"),
    ),
    "promote_types_first": guard(
        21,
        "a key of another type among those of limits is found before anything is moved",
        (PROMOTE, "if foreign then error('PROMOTE-TYPE ' .. foreign) end", ""),
    ),
}
