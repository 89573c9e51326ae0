"""Guards of reading: rules 5-10."""

from __future__ import annotations

from tests.faults.guard import LUA, WORKER, Guard, guard

READING: dict[str, Guard] = {
    "no_slot_no_read": guard(
        5,
        "nothing is delivered to a process without a free slot",
        (
            WORKER + "consumer.py",
            "if room <= 0 or not lanes or not self._may_read():",
            "if not lanes or not self._may_read():",
        ),
    ),
    "count_one_over_lanes": guard(
        5,
        "a read of several lanes brings one of each at most, since COUNT is per stream",
        (
            WORKER + "consumer.py",
            "self._read(lanes, room if len(lanes) == 1 else 1, self.block_ms)",
            "self._read(lanes, room, self.block_ms)",
        ),
        (
            WORKER + "consumer.py",
            "self._read(lanes, 1 if len(lanes) > 1 else room, None)",
            "self._read(lanes, room, None)",
        ),
    ),
    "room_rechecked": guard(
        5,
        "a slot that was taken while a read was on its way is not given away twice",
        (
            WORKER + "consumer.py",
            "room = self._room_now(name)\n        for stream",
            "room = count\n        for stream",
        ),
    ),
    "excess_released": guard(
        5,
        "what a read brings beyond the free slots does not wait here while others idle",
        (WORKER + "consumer.py", "if taken > room:", "if False:"),
    ),
    "bell_rung": guard(
        6,
        "an idle worker of a large fleet hears of new work",
        (
            LUA + "enqueue.lua",
            "if pcall('LLEN', KEYS[4 + 2 * i]) == 0 then pcall('RPUSH', KEYS[4 + 2 * i], '1') end",
            "",
        ),
    ),
    "bell_rerung": guard(
        6,
        "a second worker hears of what the first one had no slot for",
        (
            WORKER + "consumer.py",
            "if await self._sweep(lanes, room) >= room and rung is not None:",
            "if await self._sweep(lanes, room) < 0:",
        ),
    ),
    "bell_rerung_at_stop": guard(
        6,
        "a bell that wakes one who stops rings for another one",
        (WORKER + "consumer.py", "if self._stopping and rung is not None:", "if False:"),
    ),
    "bell_block_bound": guard(
        6,
        "a wake-up that was lost costs one BLOCK",
        (WORKER + "consumer.py", 'plain("BLPOP", *bells, self.block_ms / 1000)', 'plain("BLPOP", *bells, 0)'),
    ),
    "new_lane_told": guard(
        6,
        "every worker hears of a new lane",
        (LUA + "enqueue.lua", "lost[made[j]] and 'lost' or 'lane'", "'nothing'"),
    ),
    "changed_meanwhile": guard(
        6,
        "what changes between a look and the blocking read is not slept over",
        (WORKER + "consumer.py", "if self._is_changed:\n            return", "if False:\n            return"),
    ),
    "starvation_sweep": guard(
        7,
        "the lowest lane moves under endless load above it",
        (WORKER + "consumer.py", "if starved and self._reads % _UPSIDE_DOWN_EVERY == 0:", "if False:"),
    ),
    "upside_down_rarely": guard(
        7,
        "a starved lane takes one read in ten, not all of them",
        (WORKER + "consumer.py", "if starved and self._reads % _UPSIDE_DOWN_EVERY == 0:", "if starved:"),
    ),
    "group_made_anew": guard(
        8,
        "a reader whose group was lost reads again",
        (WORKER + "consumer.py", "self._needs_heal = True", "await asyncio.sleep(0.01)"),
    ),
    "loss_noted": guard(
        8,
        "what a lost group had not settled comes back",
        (
            LUA + "heal.lua",
            "local noted = pcall('HSET', KEYS[4], ARGV[1], ",
            "local noted = string.len(",
        ),
    ),
    "settled_not_restored": guard(
        8,
        "what the journal knows as settled does not come back with it",
        (LUA + "restore.lua", "for i = 5, #ARGV do taken[ARGV[i]] = true end", ""),
    ),
    "low_mark": guard(
        8,
        "what lies below the mark does not come back, though the journal forgot it",
        (LUA + "heal.lua", "low, at = pcall('HGET', KEYS[3], ARGV[1]), last", "low, at = '0', last"),
    ),
    "mark_never_falls": guard(
        8,
        "a mark set back does not bring back what is settled and forgotten",
        (LUA + "maintain.lua", "if not before or less(before, low) then", "if true then"),
    ),
    "mark_below_pending": guard(
        8,
        "the mark does not pass what is in hand",
        (LUA + "maintain.lua", "local oldest = pending > 0 and", "local oldest = false and"),
    ),
    "restored_before_trim": guard(
        8,
        "nothing is trimmed before all of a lost group is restored",
        (
            LUA + "maintain.lua",
            "if not last or type(redis.pcall('HGET', KEYS[7], ARGV[1])) == 'string' then",
            "if not last then",
        ),
    ),
    "unknown_left": guard(
        9,
        "a task that this worker does not know is left for one that does",
        (
            WORKER + "runner.py",
            "self.endings.unknown(run)",
            'self.endings.dead(run, "unknown_task", Failure("TaskNotFound", ""))',
        ),
    ),
    "unknown_backoff": guard(
        9,
        "it does not go round and round between those that do not know it",
        (
            WORKER + "endings.py",
            "delay_ms = min(UNKNOWN_FIRST_MS << min(past.deferrals, 20), UNKNOWN_MOST_MS)",
            "delay_ms = 0",
        ),
    ),
    "unknown_counted_apart": guard(
        9,
        "its waiting costs it no attempt",
        (
            WORKER + "endings.py",
            "past._replace(deferrals=past.deferrals + 1), delay_ms",
            "past._replace(deferrals=past.deferrals + 1, attempt=past.attempt + 1), delay_ms",
        ),
    ),
    "unknown_ttl": guard(
        9,
        "it does not wait for ever",
        (WORKER + "endings.py", "if waited_ms >= UNKNOWN_TTL_MS:", "if False:"),
    ),
    "cancel_mark_heeded": guard(
        10,
        "what is cancelled before its body begins does not run",
        (WORKER + "runner.py", "if message.id in run.lane.queue.cancelled:", "if False:"),
    ),
    "cancel_marks_fetched": guard(
        10,
        "a worker that starts knows what was cancelled before",
        (WORKER + "keeper.py", "if cancelled:", "if False:"),
    ),
    "cancel_told": guard(
        10,
        "a worker that runs hears what is cancelled",
        (LUA + "cancel.lua", "call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', 'cancel', 'v', id)", ""),
    ),
    "missed_signals": guard(
        10,
        "nor does a flood of signals wash a cancellation away",
        (
            WORKER + "control.py",
            "if len(entries) == self.AT_ONCE and await self._has_missed(cursor):",
            "if False:",
        ),
    ),
    "cancel_mark_freed": guard(
        10,
        "a mark goes with its message's end",
        (LUA + "finish.lua", "if has_marks then redis.call('HDEL', k.cancelled, id) end", ""),
    ),
}
