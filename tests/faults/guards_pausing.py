"""Guards of pauses: what is paused does not begin, is lost nowhere, and goes on once it is resumed (rules 26, 28)."""

from __future__ import annotations

from tests.faults.guard import LUA, WORKER, Guard, guard

PAUSE, UNHOLD = LUA + "pause.lua", LUA + "unhold.lua"
CONSUMER, RUNNER, KEEPER = WORKER + "consumer.py", WORKER + "runner.py", WORKER + "keeper.py"
RECLAIMER, UNHOLDER = WORKER + "reclaimer.py", WORKER + "unholder.py"

PAUSING: dict[str, Guard] = {
    "paused_queue_unread": guard(
        28,
        "nobody reads from a paused queue",
        (CONSUMER, "for queue in self.queues if not queue.is_paused for lane", "for queue in self.queues for lane"),
    ),
    "paused_queue_unadopted": guard(
        28,
        "nor takes over what was given back to it",
        (RECLAIMER, " or lane.is_foreign or queue.is_paused:", " or lane.is_foreign:"),
    ),
    "paused_task_aside": guard(
        28,
        "a task that is paused does not begin",
        (RUNNER, "if message.task in run.lane.queue.paused_tasks:", "if False:"),
    ),
    "pause_told": guard(
        28,
        "workers that run hear of a pause, and of its end, also where they missed it the first time",
        (
            PAUSE,
            "redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'e', ARGV[2] == '' and 'resume' or 'pause',",
            "if changed == 1 then redis.pcall('XADD', KEYS[2], '*', 'e', ARGV[2] == '' and 'resume' or 'pause',",
        ),
        (PAUSE, "'v', ARGV[1])\nif ARGV[2]", "'v', ARGV[1]) end\nif ARGV[2]"),
    ),
    "pause_heard": guard(
        28,
        "and do as they are told",
        (KEEPER, 'elif event in ("pause", "resume"):', "elif False:"),
    ),
    "pauses_fetched": guard(
        28,
        "a worker that starts knows what was paused before",
        (KEEPER, 'self._paused(queue, {mark.decode(errors="replace") for mark in paused})', "pass"),
    ),
    "resumed_looked_at": guard(
        28,
        "somebody looks whether there is room for a group that is resumed",
        (PAUSE, "redis.pcall('ZADD', KEYS[4], string.format('%.0f', t[1] * 1000000 + t[2]), line)", ""),
    ),
    "resumed_when_full": guard(
        3,
        "also where Redis is full",
        (
            PAUSE,
            "  changed = redis.call('HDEL', KEYS[1], ARGV[1])",
            "  changed = redis.call('HSETNX', KEYS[1], '', '')",
        ),
    ),
    "held_while_paused": guard(
        26,
        "what waits for a paused task goes on when that is resumed, and no other does",
        (UNHOLD, "if paused[score] then", "if false then"),
    ),
    "held_apart": guard(
        26,
        "nor does what is for later",
        (UNHOLD, "local from, moved = text(first), 0", "local from, moved = '-inf', 0"),
    ),
    "held_is_told": guard(
        26,
        "the promoter hears of what goes on",
        (UNHOLD, "if moved > 0 then", "if false then"),
    ),
    "unhold_all": guard(
        26,
        "all that waited goes on, however much that is",
        (UNHOLDER, "== self.BATCH:\n            return 0.0", "== self.BATCH:\n            return None"),
    ),
    "unhold_again": guard(
        26,
        "so does what a worker set aside that heard of the end of the pause too late",
        (UNHOLDER, "self._again = list(self.AGAIN_S)", "self._again = []"),
    ),
    "unhold_nudged": guard(
        26,
        "it does so at once",
        (KEEPER, "self._unholders[queue.keys.queue].nudge()", "pass"),
    ),
}
