"""Guards inside flow.lua, room.lua and lines.lua: rooms, permits and lines (rule 28).

Their scenarios ask for behaviour only: where those scripts are rewritten, only this file and guards_waking.py follow.
"""

from __future__ import annotations

from tests.faults.guard import LUA, Guard, guard

FLOW_LUA, ROOM, LINES = LUA + "flow.lua", LUA + "room.lua", LUA + "lines.lua"

_ADMITTING: dict[str, Guard] = {
    "flow_own_permit": guard(
        28,
        "what has its permits does not ask for further ones",
        (FLOW_LUA, "(kind == 'k') == (turn == 1) and not has(place, kind) then", "(kind == 'k') == (turn == 1) then"),
    ),
    "flow_taken_once": guard(
        28,
        "nor is it counted twice where it asks again",
        (FLOW_LUA, "if kind ~= 'u' and not has(place, kind) then\n      held", "if kind ~= 'u' then\n      held"),
    ),
    "flow_given_back_once": guard(
        28,
        "and what has given its permit back counts no less for that",
        (LINES, "elseif flow.has(record[3], kind) then", "elseif true then"),
    ),
    "flow_at_once": guard(
        28,
        "no more have a permit than run at once",
        (ROOM, "if kind == 'c' then return count(k, name) < limit[3] end", "if kind == 'c' then return true end"),
    ),
    "flow_one_of_a_key": guard(
        28,
        "of a strict order one runs at a time",
        (ROOM, "if kind == 'k' then return count(k, name) < 1 end", "if kind == 'k' then return true end"),
    ),
    "flow_no_overtaking": guard(
        28,
        "nobody passes those who wait already",
        (FLOW_LUA, "if name ~= from and flow.waiting(k, name) > 0 then return limit, place end", ""),
    ),
    "flow_all_or_none": guard(
        28,
        "who waits for one limit holds nothing of another",
        (
            FLOW_LUA,
            "if not flow.room(k, limit, now) then return limit, place end",
            "if not flow.room(k, limit, now) then return limit, place end\nheld[name] = count(k, name) + 1",
        ),
    ),
    "flow_turn_kept": guard(
        28,
        "but its turn in a strict order, or the next one of its key would pass it",
        (FLOW_LUA, "held[name], place = count(k, name) + 1, '+'", ""),
    ),
    "flow_window": guard(
        28,
        "groups take turns for so many places, and none takes all",
        (
            ROOM,
            "if kind == 'v' then return count(k, name) < size_of(k, name) end",
            "if kind == 'v' then return true end",
        ),
    ),
    "flow_paused_group": guard(
        28,
        "a paused group is let in nowhere",
        (ROOM, "return not is_paused(k, name) and (", "return ("),
    ),
    "flow_group_at_once": guard(
        28,
        "a group has a limit of its own",
        (ROOM, " and (limit[4] == 0 or count(k, name) < limit[4])", ""),
    ),
    "flow_tokens_reserved": guard(
        28,
        "a token that is promised to one is not promised to another",
        (ROOM, "if has + 1e-6 >= reserved + 1 then return true end", "if has >= 1 then return true end"),
    ),
    "flow_burst": guard(
        28,
        "a bucket is never fuller than its burst",
        (
            ROOM,
            "return math.min(limit[4], bucket[1] + math.max(0, now - bucket[2]) / limit[3])",
            "return bucket[1] + math.max(0, now - bucket[2]) / limit[3]",
        ),
    ),
    "flow_starts_counted": guard(
        28,
        "a window counts what has started in it",
        (ROOM, "if starts(k, limit, now) + reserved < limit[3] then", "if reserved < limit[3] then"),
    ),
    "flow_starts_reserved": guard(
        28,
        "and what is about to",
        (ROOM, "if starts(k, limit, now) + reserved < limit[3] then", "if starts(k, limit, now) < limit[3] then"),
    ),
    "flow_window_moves": guard(
        28,
        "a window moves on",
        (ROOM, "string.format('%016.0f', now - limit[4])", "string.rep('0', 16)"),
    ),
    "flow_tokens_of_the_future": guard(
        28,
        "a bucket of a clock that was set back since lets somebody in again",
        (ROOM, "if had and tonumber(at) > now then begun[limit[2]] = limit end", ""),
    ),
    "flow_starts_of_the_future": guard(
        28,
        "so does a window",
        (
            ROOM,
            "redis.call('ZREMRANGEBYLEX', k.starts, '(' .. name .. NUL .. string.format('%016.0f', now + 1), last)",
            "",
        ),
    ),
    "flow_types_first": guard(
        21,
        "a key of another type is found before anything is written",
        (FLOW_LUA, "if is ~= kind and is ~= 'none' then return key .. ' is a ' .. is end", ""),
    ),
}

_WAITING: dict[str, Guard] = {
    "flow_levels": guard(
        28,
        "of those who wait the higher level goes first",
        (LINES, "local level = (kind == 'k' or kind == 'v') and 0 or class", "local level = 0"),
    ),
    "flow_strict_order": guard(
        28,
        "but a strict order knows no levels",
        (LINES, "(kind == 'k' or kind == 'v') and 0 or class", "kind == 'v' and 0 or class"),
    ),
    "flow_levels_in_turn": guard(
        28,
        "and in the window of groups a lower level has its turns, too",
        (LINES, "(kind == 'k' or kind == 'v') and 0 or class", "kind == 'k' and 0 or class"),
    ),
    "flow_arrival_kept": guard(
        28,
        "who moves from one line to another keeps its arrival",
        (LINES, "place.arrival or next_arrival(k)", "next_arrival(k)"),
    ),
    "flow_time_noted": guard(
        28,
        "who waits for a token is looked at when it is there",
        (ROOM, "redis.call('ZADD', k.wake, string.format('%.0f', at), limit[2])", ""),
    ),
    "flow_time_told": guard(
        28,
        "and the promoter hears when that is",
        (ROOM, "if redis.call('ZRANGE', k.wake, 0, 0)[1] == limit[2] then", "if false then"),
    ),
    "flow_parked_for_time": guard(
        28,
        "also of who comes when the tokens are spent",
        (LINES, "then flow.look_again(limit) end\nend", "then return end\nend"),
    ),
    "flow_leaves_once": guard(
        25,
        "only who stands in a line leaves it, so that a cancel commits nothing else",
        (
            LINES,
            "if redis.call('ZREM', k.parked, place.name .. NUL .. place.order .. NUL .. id) ~= 1 then return false end",
            "redis.call('ZREM', k.parked, place.name .. NUL .. place.order .. NUL .. id)",
        ),
    ),
    "flow_cancelled_whole": guard(
        28,
        "nor does it wait there any longer then",
        (LINES, "redis.call('HDEL', k.parked_body, id)", ""),
    ),
    "flow_leaves_whole": guard(
        28,
        "who is woken waits in its line no longer (I1)",
        (LINES, "if not keeps_body then left_bodies[#left_bodies + 1] = first.id end", ""),
    ),
}

FLOW = {**_ADMITTING, **_WAITING}
