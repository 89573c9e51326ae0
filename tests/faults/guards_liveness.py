"""Guards of who is alive and who is dead: rules 11-16."""

from __future__ import annotations

from tests.faults.guard import LUA, WORKER, Change, Guard

LIVENESS: dict[str, Guard] = {
    "registration": Guard(
        11,
        "a consumer's life begins in the script that registers it",
        (Change(LUA + "register.lua", "redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])\n", ""),),
    ),
    "registered first": Guard(
        11,
        "a process hears of a beat, and so may read, only once Redis knows it",
        (
            Change(
                WORKER + "keeper.py",
                "        sent_at_ms = SYSTEM_CLOCK.steady_ms()\n        for queue in self.queues:\n",
                "        sent_at_ms = SYSTEM_CLOCK.steady_ms()\n        member.beaten(sent_at_ms)\n"
                "        for queue in self.queues:\n",
            ),
        ),
    ),
    "fenced": Guard(
        11,
        "who was declared dead is told so instead of living on",
        (Change(LUA + "revive.lua", "if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 'fenced' end\n", ""),),
    ),
    "revived": Guard(
        11,
        "who was late and not taken lives on",
        (Change(LUA + "revive.lua", "if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then", "if true then"),),
    ),
    "incarnation": Guard(
        11,
        "who was fenced goes on under a name that was never used",
        (
            Change(WORKER + "embedded.py", "self.worker.rename(self._new_name())", "self.worker.rename(self._dead)"),
            Change(
                WORKER + "embedded.py",
                "    def _on_fenced(self) -> None:\n",
                "    def _on_fenced(self) -> None:\n        self._dead = self.worker.name\n",
            ),
        ),
    ),
    "lease lost": Guard(
        11,
        "what a fenced consumer still runs is told that its lease is lost",
        (Change(WORKER + "worker.py", "self.runner.context(run).lease_lost = True", "pass"),),
    ),
    "young beat": Guard(
        12,
        "a consumer reads only while its last good beat is younger than half a life",
        (
            Change(
                WORKER + "consumer.py",
                "and SYSTEM_CLOCK.steady_ms() - self._table.beat_at_ms < self.half_ttl_ms",
                "",
            ),
        ),
    ),
    "boot clock": Guard(
        12,
        "time on a suspended machine counts",
        (
            Change(
                "streamwork/clock.py",
                'getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)',
                "time.CLOCK_MONOTONIC",
            ),
        ),
    ),
    "seen in the lanes": Guard(
        13,
        "an owner of entries is found dead though it is not registered",
        (Change(WORKER + "liveness.py", "dead += await self._unregistered({*others, *self._members})", "pass"),),
    ),
    "seen in the list": Guard(
        13,
        "a registered consumer without a life is found dead",
        (Change(WORKER + "liveness.py", "dead = await self._without_liveness(others)", "dead: list[str] = []"),),
    ),
    "pulse": Guard(
        14,
        "a lapsed pulse starts a grace",
        (Change(LUA + "pulse.lua", "redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])\n", ""),),
    ),
    "pause after a lapse": Guard(
        14,
        "a reaper whose pulse had lapsed takes nobody in that tick; covered by `grace`, and saves its commands",
        (Change(WORKER + "liveness.py", "if pulse.lapsed:", "if False:"),),
    ),
    "pulse life": Guard(
        14,
        "the pulse lapses before a live worker's key does",
        (Change("streamwork/settings.py", "return int(self.ttl_s * 500)", "return int(self.ttl_s * 2500)"),),
    ),
    "grace": Guard(
        14,
        "the script that takes checks the grace itself",
        (Change(LUA + "take.lua", "if call('EXISTS', KEYS[5]) == 1 then return -1 end\n", ""),),
    ),
    "alive": Guard(
        14,
        "the script that takes checks the life itself",
        (Change(LUA + "take.lua", "if call('EXISTS', KEYS[6]) == 1 then return -2 end\n", ""),),
    ),
    "pulse to take": Guard(
        14,
        "nobody is taken where the pulse has lapsed since the reaper looked",
        (Change(LUA + "take.lua", "if call('EXISTS', KEYS[14]) == 0 then return -1 end\n", ""),),
    ),
    "two looks at the dead": Guard(
        14,
        "who comes back with the next beat is not taken",
        (Change(WORKER + "liveness.py", "for consumer in missed.intersection(dead):", "for consumer in dead:"),),
    ),
    "taken from the dead": Guard(
        15,
        "the reaper moves what the dead one owns and nothing else",
        (
            Change(
                LUA + "take.lua",
                "redis.pcall('XPENDING', KEYS[1], 'workers', '-', '+', ARGV[3], consumer)",
                "redis.pcall('XPENDING', KEYS[1], 'workers', '-', '+', ARGV[3])",
            ),
        ),
    ),
    "given back by its owner": Guard(
        15,
        "a zombie gives back nothing that another one runs",
        (
            Change(
                LUA + "release.lua",
                "if not p.err and #p == 1 and p[1][4] == tonumber(ARGV[i + 1]) then",
                "if true then",
            ),
        ),
    ),
    "rung for": Guard(
        15,
        "what is marked is told and rung for",
        (
            Change(LUA + "take.lua", "redis.pcall('SADD', KEYS[2], lane)", ""),
            Change(
                LUA + "take.lua",
                "redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'e', 'returned', 'v', lane)",
                "",
            ),
            Change(
                LUA + "take.lua", "if redis.pcall('LLEN', KEYS[4]) == 0 then redis.pcall('RPUSH', KEYS[4], '1') end", ""
            ),
        ),
    ),
    "empty": Guard(
        15,
        "a consumer's name goes only where it owns nothing",
        (Change(LUA + "drop_consumer.lua", "if p.err or #p > 0 then", "if p.err then"),),
    ),
    "one block later": Guard(
        15,
        "a name goes no sooner than a blocked read of the dead can bring it back",
        (Change(WORKER + "liveness.py", "if now_ms - at_ms > self._block_ms + 1_000:", "if True:"),),
    ),
    "in place": Guard(
        15,
        "what is given back keeps its entry, and counts no attempt",
        (
            Change(
                LUA + "release.lua",
                "      call('XCLAIM', KEYS[1], 'workers', 'returned', 0, ARGV[i], 'TIME', 1, 'JUSTID')\n",
                "      local e = call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1][2]\n"
                "      call('XACK', KEYS[1], 'workers', ARGV[i])\n"
                "      call('XADD', KEYS[1], '*', 'a', '2,0,0,1,0', e[1], e[2])\n",
            ),
        ),
    ),
    "adopted by owner": Guard(
        16,
        "only marked entries are adopted, however old a live owner's are (rule 18 too)",
        (
            Change(
                LUA + "adopt.lua",
                "redis.pcall('XPENDING', KEYS[1], 'workers', '-', '+', ARGV[3], from)",
                "redis.pcall('XPENDING', KEYS[1], 'workers', 'IDLE', 3000, '-', '+', ARGV[3])",
            ),
        ),
    ),
    "adopted first": Guard(
        16,
        "what was given back comes before what is new",
        (
            Change(
                WORKER + "consumer.py",
                "        if await self.reclaimer.adopt(self.queues, name, room, lambda: self._room_now(name)):\n"
                "            return\n        self._reads += 1\n",
                "        self._reads += 1\n        if await self._read(lanes, room, None):\n            return\n"
                "        if await self.reclaimer.adopt(self.queues, name, room, lambda: self._room_now(name)):\n"
                "            return\n",
            ),
        ),
    ),
}
