"""Guards of sending: rules 1-4."""

from __future__ import annotations

from tests.faults.guard import BROKER, LUA, STORE, Guard, guard

ENQUEUE: dict[str, Guard] = {
    "sender_numbers": guard(
        1,
        "a chunk sent again after a lost answer is not enqueued again",
        (LUA + "enqueue.lua", "local mark = call('GET', KEYS[1])", "local mark = false"),
    ),
    "schedule_numbers": guard(
        1,
        "nor scheduled again",
        (LUA + "schedule.lua", "if last == number then return string.sub(mark, cut + 1) end", ""),
        (LUA + "schedule.lua", "if number ~= last + 1 then", "if false then"),
    ),
    "gap": guard(
        1,
        "a late copy of an old chunk writes nothing",
        (
            LUA + "enqueue.lua",
            "if number ~= last + 1 then return redis.error_reply(",
            "if false then return redis.error_reply(",
        ),
    ),
    "unknown_number": guard(
        1,
        "a number of unknown fate is not used for another chunk of a thread",
        (
            BROKER + "sync_sender.py",
            "sender, self._sender = self._sender or Sender(self._config.max_lanes, self._limits), None",
            "sender = self._sender = self._sender or Sender(self._config.max_lanes, self._limits)",
        ),
    ),
    "unknown_number_on_a_loop": guard(
        1,
        "nor for another chunk of a loop",
        (
            BROKER + "async_sender.py",
            "self._senders.pop(line, None) or Sender(self._config.max_lanes, self._limits)",
            "self._senders.setdefault(line, Sender(self._config.max_lanes, self._limits))",
        ),
    ),
    "resend_bound": guard(
        1,
        "nothing is sent again once the server may have forgotten its number",
        (BROKER + "resend.py", "if self.in_doubt and now_s >= (", "if False and now_s >= ("),
    ),
    "resend_bound_of_ours": guard(
        1,
        "nor where the settings ask for that",
        (
            BROKER + "resend.py",
            "self._unknown_s = min(self._unknown_s, now_s + MOST_IN_DOUBT_S)",
            "pass",
        ),
    ),
    "sender_of_a_pid": guard(
        2,
        "two forked children do not number their chunks under one name",
        (
            BROKER + "sync_sender.py",
            'if getattr(local, "pid", None) != os.getpid():',
            'if getattr(local, "pid", None) is None:',
        ),
    ),
    "bulk_sender_of_a_pid": guard(
        2,
        "nor those of a bulk",
        (BROKER + "sync_sender.py", "self._spare, self._pid = [], os.getpid()", "pass"),
    ),
    "connection_of_a_pid": guard(
        2,
        "a forked child does not speak on its parent's connection",
        (STORE + "sync_driver.py", "if link is None or self._local.pid != pid:", "if link is None:"),
    ),
    "listener_of_a_pid": guard(
        2,
        "a forked child, which has no listener thread, does not wait for its parent's to tell it",
        (
            BROKER + "results.py",
            "        if self._pid != os.getpid():\n            self._reset()\n        if self._client_id is None:",
            "        if self._client_id is None:",
        ),
    ),
    "fork_reset": guard(
        2,
        "a forked child does not wait for a lock that a thread of its parent held",
        ("streamwork/links.py", "os.register_at_fork(after_in_child=_after_fork)", "pass"),
    ),
    "uuid_randomness": guard(
        2,
        "forked processes do not draw the same ids",
        ("streamwork/ids.py", "_random = os.urandom", "_random = __import__('random').Random(0).randbytes"),
    ),
    "enqueue_refused_whole": guard(
        3,
        "a full Redis takes no new work",
        (
            LUA + "enqueue.lua",
            "local number, lanes = tonumber(ARGV[1]), tonumber(ARGV[5])",
            "local number, lanes = tonumber(ARGV[1]), tonumber(ARGV[5])\ncall('PEXPIRE', KEYS[1], ARGV[2])",
        ),
    ),
    "schedule_refused_whole": guard(
        3,
        "nor for later",
        (
            LUA + "schedule.lua",
            "local call = redis.call\n",
            "local call = redis.call\ncall('PEXPIRE', KEYS[1], ARGV[2])\n",
        ),
    ),
    "settle_when_full": guard(
        3,
        "a full Redis still takes the outcome of work in hand",
        (
            LUA + "settle.lua",
            "local lost, tally, settled, retried = {}, {}, {}, {}",
            "local lost, tally, settled, retried = {}, {}, {}, {}\ncall('HSET', KEYS[2], 'succeeded', 0)",
        ),
    ),
    "release_when_full": guard(
        3,
        "a worker can give back its deliveries when Redis is full",
        (LUA + "release.lua", "local back = 0\n", "local back = 0\ncall('SADD', KEYS[2], ARGV[2])\n"),
    ),
    "beat_when_full": guard(
        3,
        "a worker whose sign of life had lapsed lives on when Redis is full",
        (
            LUA + "revive.lua",
            "if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 1 then",
            "if redis.call('EXISTS', KEYS[1]) == 1 then",
        ),
    ),
    "promote_when_full": guard(
        3,
        "what is due gets to its lane when Redis is full",
        (
            LUA + "promote.lua",
            "local moved, unknown, added = 0, 0, {}",
            "local moved, unknown, added = 0, 0, {}\nif #ids > 0 then call('HSET', KEYS[5], ids[1], '') end",
        ),
    ),
    "group_with_its_stream": guard(
        4,
        "a lane is never without its group",
        (
            LUA + "enqueue.lua",
            "local group = pcall('XGROUP', 'CREATE', KEYS[3 + 2 * i], 'workers', '0', 'MKSTREAM')",
            "local group = 0",
        ),
    ),
    "group_at_the_start": guard(
        4,
        "a group that comes after the first entry hides none",
        (
            LUA + "enqueue.lua",
            "pcall('XGROUP', 'CREATE', KEYS[3 + 2 * i], 'workers', '0', 'MKSTREAM')",
            "pcall('XGROUP', 'CREATE', KEYS[3 + 2 * i], 'workers', '$', 'MKSTREAM')",
        ),
        (
            LUA + "enqueue.lua",
            "pcall('XGROUP', 'CREATE', KEYS[3 + 2 * i], 'workers', '0')",
            "pcall('XGROUP', 'CREATE', KEYS[3 + 2 * i], 'workers', '$')",
        ),
    ),
    "lane_bound": guard(
        4,
        "a queue has no more lanes than its readers can bear",
        (LUA + "enqueue.lua", "if call('HLEN', KEYS[2]) + new > tonumber(ARGV[3]) then", "if false then"),
    ),
}
