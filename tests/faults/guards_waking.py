"""Guards inside flow.lua, room.lua and lines.lua: who is woken, and what is spent and given back (rule 28)."""

from __future__ import annotations

from tests.faults.guard import LUA, Guard, guard

FLOW_LUA, ROOM, LINES = LUA + "flow.lua", LUA + "room.lua", LUA + "lines.lua"

_WAKING: dict[str, Guard] = {
    "flow_woken_asks": guard(
        28,
        "who is woken asks for its permits",
        (LINES, "local lacks, keeps = flow.admit(k, record[1], now, record[3], name)", "local lacks, keeps"),
    ),
    "flow_woken_from_its_line": guard(
        28,
        "and does not wait for itself",
        (LINES, "flow.admit(k, record[1], now, record[3], name)", "flow.admit(k, record[1], now, record[3])"),
    ),
    "flow_woken_moves_on": guard(
        28,
        "who lacks something else holds up nobody behind it",
        (LINES, "if lacks and lacks[2] == name then return lacks end", "if lacks then return lacks end"),
    ),
    "flow_woken_keeps_turn": guard(
        28,
        "and is known to have its turn in a strict order then",
        (LINES, "flow.placed(first.id, record[2], keeps)", ""),
    ),
    "flow_woken_past_garbage": guard(
        28,
        "what is no message holds up nobody",
        (LINES, "step_out(k, name, first, true)  -- not ours", "do return {'c', name, 0} end  -- not ours"),
    ),
    "flow_woken_further": guard(
        28,
        "where many are to be looked at, the promoter goes on",
        (LINES, "redis.call('ZADD', k.wake, 'LT', string.format('%.0f', at), line)", ""),
    ),
    "flow_woken_again": guard(
        28,
        "a line of a rate is looked at again for its next token",
        (LINES, "then flow.look_again(limit) end\n      return nil", "then return nil end\n      return nil"),
    ),
    "flow_weights": guard(
        28,
        "groups take turns by their weight",
        (LINES, "math.max(1, math.floor(TURN / weight))", "TURN"),
    ),
    "flow_turns": guard(
        28,
        "after its turn a group is behind the others",
        (LINES, "math.min(last[2], head + (last[1] - 1) * step) + step", "last[2]"),
    ),
    "flow_no_saved_turns": guard(
        28,
        "a group that was away has saved up no turns",
        (
            LINES,
            "and math.min(LAST, math.max(head, math.min(last[2], head + (last[1] - 1) * step) + step)) or head",
            "and last[2] + step or 0",
        ),
    ),
    "flow_turns_forgotten": guard(
        28,
        "nothing is kept of a group of which nobody waits (rule 34)",
        (LINES, "last[1], last.has_changed = math.max(0, last[1] - 1), true", ""),
    ),
    "flow_put_placed": guard(
        28,
        "who is woken is known to be on its lane",
        (LINES, "flow.placed(id, packed, place.lane .. '/' .. entry)", ""),
    ),
    "flow_put_moved": guard(
        28,
        "so that nobody is told that it has ended",
        (LINES, "moves[#moves + 1], moves[#moves + 2] = id, place.lane .. '\\n' .. entry", ""),
    ),
    "flow_put_where_read": guard(
        28,
        "it is not put where no group reads",
        (LINES, "redis.pcall('XADD', stream, 'NOMKSTREAM', '*',", "redis.pcall('XADD', stream, '*',"),
    ),
    "flow_put_counted": guard(
        28,
        "it counts for the backlog",
        (LINES, "redis.pcall('HINCRBY', k.added, lane, n)", ""),
    ),
    "flow_put_rung": guard(
        6,
        "and an idle worker hears of it",
        (LINES, "if redis.pcall('LLEN', k.bells[lane]) == 0 then redis.pcall('RPUSH', k.bells[lane], '1') end", ""),
    ),
    "flow_put_told": guard(
        26,
        "the promoter does, where it goes through due",
        (LINES, "redis.pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', now)", ""),
    ),
}

_FREEING: dict[str, Guard] = {
    "flow_token_spent": guard(
        28,
        "a start takes a token",
        (ROOM, "math.max(0, tokens(k, limit, now) - 1)", "math.max(0, tokens(k, limit, now))"),
    ),
    "flow_start_noted": guard(
        28,
        "or a place in the window",
        (ROOM, "many('ZADD', k.starts, remembered)", ""),
    ),
    "flow_token_once": guard(
        28,
        "and not two",
        (ROOM, "held[name] = count(k, name) - 1\n", "\n"),
    ),
    "flow_spent_and_noted": guard(
        28,
        "who waits for the next one is looked at when that is there",
        (ROOM, "begun[name], relook[name] = limit, limit", "begun[name] = limit"),
    ),
    "flow_buckets_end": guard(
        28,
        "a bucket that is full again is kept no longer (rule 34)",
        (ROOM, "expire_after(k.rates, longest)", ""),
    ),
    "flow_starts_end": guard(
        28,
        "nor are the starts of a window that is over",
        (ROOM, "if #remembered > 0 then expire_after(k.starts, longest_window) end", ""),
    ),
    "flow_longest_life": guard(
        28,
        "a short span does not cut a long one off",
        (ROOM, "if redis.call('PTTL', key) < ms then", "if true then"),
    ),
    "flow_name_until_start": guard(
        28,
        "a name that is unique until the start is free from then on",
        (ROOM, "elseif kind == 'u' and limit[5] == 1 then", "elseif false then"),
    ),
    "flow_name_compared_at_start": guard(
        28,
        "unless it is another one's by then",
        (
            ROOM,
            "if is_owner(redis.call('HGET', k.unique, name), id) then redis.call('HDEL'",
            "if true then redis.call('HDEL'",
        ),
    ),
    "flow_name_compared": guard(
        28,
        "who ends frees its own name only",
        (FLOW_LUA, "if is_owner(owners[j], owned[i + j - 1][2]) then", "if true then"),
    ),
    "flow_name_through_retries": guard(
        28,
        "a retry keeps its name",
        (LINES, "if not is_retry then free_unique(k, owned) end", "free_unique(k, owned)"),
    ),
    "flow_turn_through_retries": guard(
        28,
        "and its turn in a strict order",
        (LINES, "if is_retry and kind == 'k' then", "if false then"),
    ),
    "flow_freed_by_retries": guard(
        28,
        "but none of its other permits",
        (LINES, "if is_retry and kind == 'k' then", "if is_retry then"),
    ),
    "flow_record_freed": guard(
        28,
        "what has ended is known no longer",
        (LINES, "many('HDEL', k.flow, ended)", ""),
    ),
    "flow_next_woken": guard(
        28,
        "the same script wakes the next one",
        (LINES, "if waits[names[i]] > 0 then flow.wake(k, names[i], flow.now(), freed[names[i]]) end", ""),
    ),
}

WAKING = {**_WAKING, **_FREEING}
