"""Guards of what is due and of schedules: rules 26 and 27."""

from __future__ import annotations

from tests.faults.guard import LUA, WORKER, Guard, guard

PROMOTE, FIRE, PLAN = LUA + "promote.lua", LUA + "fire.lua", LUA + "plan.lua"
UPKEEP, KEEPER = WORKER + "upkeep.py", WORKER + "keeper.py"

DUE: dict[str, Guard] = {
    "promoted_once": guard(
        26,
        "what goes to its lane is due no longer (I1)",
        (PROMOTE, "elseif call('ZREM', KEYS[1], id) == 1 then", "else"),
    ),
    "promoted_in_time": guard(
        26,
        "nothing goes there before its time",
        (PROMOTE, "call('ZRANGEBYSCORE', KEYS[1], '-inf', now,", "call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf',"),
    ),
    "promoted_whole": guard(
        26,
        "what its lane does not take stays in due",
        (PROMOTE, "call('ZADD', KEYS[1], score, id)\n", "\n"),
    ),
    "promoted_place": guard(
        26,
        "it is known to be on its lane again, so that nobody is told that it has ended",
        (
            PROMOTE,
            "if string.find(message, id, 1, true) then call('HSET', KEYS[5], id, lane .. '\\n' .. entry) end",
            "",
        ),
    ),
    "promoted_past_garbage": guard(
        26,
        "what is no message holds nothing back",
        (
            PROMOTE,
            "all that is behind them.\n    call('ZREM', KEYS[1], id)\n",
            "all that is behind them.\n",
        ),
    ),
    "promoter_told": guard(
        26,
        "the promoter hears of what is due before all that it knew",
        (LUA + "schedule.lua", "if tonumber(head[2]) >= first then", "if false then"),
    ),
    "promoter_told_of_retries": guard(
        26,
        "also where that is a retry",
        (LUA + "settle.lua", "if at then redis.pcall('XADD', KEYS[11],", "if false then redis.pcall('XADD', KEYS[11],"),
    ),
    "promoter_hears": guard(
        26,
        "and does not sleep on",
        (KEEPER, "self._promoters[name].nudge()", "pass"),
    ),
    "promoter_sleeps_exactly": guard(
        26,
        "it does not sleep past what is due next",
        (
            UPKEEP,
            "return min(self.interval_s, max(0.001, (done.next_at_ms - SYSTEM_CLOCK.now_ms()) / 1000 + 0.001))",
            "return self.interval_s",
        ),
    ),
    "promoter_goes_on": guard(
        26,
        "nor while more is due than it moves at once",
        (UPKEEP, "if done.moved == self.BATCH:", "if False:"),
    ),
    "promoter_learns_lanes": guard(
        26,
        "what is due gets to a lane of which nobody has told",
        (UPKEEP, "            await self._learn_lanes()\n", ""),
    ),
}

SCHEDULES: dict[str, Guard] = {
    "watermark": guard(
        27,
        "an occurrence that was decided is not decided again, however many processes try",
        (FIRE, "at <= tonumber(mark) or ", ""),
    ),
    "never_early": guard(
        27,
        "an occurrence does not happen before Redis says that it is time, whatever the clock of who fires it says",
        (FIRE, " or at > now)", ")"),
    ),
    "record_unchanged": guard(
        27,
        "who has not heard of a change does not fire what was there before it",
        (FIRE, "if not record or redis.sha1hex(record) ~= ARGV[2] then", "if not record then"),
    ),
    "mark_moves": guard(
        27,
        "with its message an occurrence is decided",
        (FIRE, "if not by_hand then call('HSET', KEYS[2], name, ARGV[3] .. ' -') end", ""),
    ),
    "paused_schedule": guard(
        27,
        "a schedule that is paused does not fire",
        (FIRE, "state == 'p' or ", ""),
    ),
    "no_overlap": guard(
        27,
        "an occurrence is passed over while the one before runs, where that is asked for",
        (FIRE, "if before and ARGV[7] == 'skip' then", "if false then"),
    ),
    "overlap_named": guard(
        27,
        "each occurrence is known to the next one for that",
        (FIRE, "if ARGV[7] ~= 'queue' then call('HSET', KEYS[8], ARGV[8], ARGV[4] .. ' 0') end", ""),
    ),
    "overlap_cancelled": guard(
        27,
        "or the one before is ended",
        (FIRE, "call('HSET', KEYS[6], before, ARGV[4] .. ' terminate')", ""),
    ),
    "overlap_of_the_gone": guard(
        27,
        "one that is nowhere holds the next one back no longer",
        (FIRE, "if before and call('HEXISTS', KEYS[7], before) == 0 then before = nil end", ""),
    ),
    "fire_limited": guard(
        28,
        "the message of an occurrence has its limits",
        (FIRE, "if ARGV[6] ~= '' then call('HSET', KEYS[7], ARGV[4], '\\n' .. ARGV[6]) end", ""),
    ),
    "fire_types_first": guard(
        21,
        "a key of another type is found before an occurrence is decided",
        (FIRE, "if is ~= kind and is ~= 'none' then error(", "if false then error("),
    ),
    "fire_refused_whole": guard(
        3,
        "a full Redis refuses an occurrence whole, and it waits for room",
        (FIRE, "call('ZADD', KEYS[3], by_hand", "call('HDEL', KEYS[4], '')\ncall('ZADD', KEYS[3], by_hand"),
    ),
    "mark_kept": guard(
        27,
        "a schedule that is declared anew goes on from its watermark",
        (
            PLAN,
            "if not mark then call('HSET', KEYS[2], name, now .. ' -') end",
            "call('HSET', KEYS[2], name, now .. ' -')",
        ),
    ),
    "mark_from_now": guard(
        27,
        "a new one begins now",
        (
            PLAN,
            "if not mark then call('HSET', KEYS[2], name, now .. ' -') end",
            "if not mark then call('HSET', KEYS[2], name, '1 -') end",
        ),
    ),
    "resumed_from_now": guard(
        27,
        "what fell into a pause does not happen",
        (PLAN, "(mark or now) .. ' p' or now .. ' -')", "(mark or now) .. ' p' or (mark or now) .. ' -')"),
    ),
    "paused_mark_kept": guard(
        27,
        "a pause is carried on when the schedule is replaced",
        (
            PLAN,
            "local mark, state = string.match(call('HGET', KEYS[2], name) or '', '^(%d+) ([p-])$')",
            "local mark, state = string.match(call('HGET', KEYS[2], name) or '', '^(%d+) (-)$')",
        ),
    ),
    "mark_removed": guard(
        27,
        "a schedule that comes again after it was removed does not make up for what was between",
        (PLAN, "  call('HDEL', KEYS[1], name)\n  call('HDEL', KEYS[2], name)\n", "  call('HDEL', KEYS[1], name)\n"),
    ),
    "declared_stands": guard(
        27,
        "what stands in code is not replaced by hand, or nobody would fire it",
        (PLAN, "if string.find(record, '\\171is_declared\\195', 1, true) then return 'declared' end", ""),
    ),
    "schedule_told": guard(
        27,
        "those that fire it hear of a change",
        (PLAN, "redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'e', 'schedules', 'v', name)\n", ""),
    ),
}

PLANNING = {**DUE, **SCHEDULES}
