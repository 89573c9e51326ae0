"""Guards of settling, of cancelling and of fences: rules 20-25, 29."""

from __future__ import annotations

from tests.faults.guard import LUA, STORE, WORKER, Guard, guard

SETTLING: dict[str, Guard] = {
    "gate": guard(
        20,
        "a success counts only if its XACK answers 1",
        (
            LUA + "settle.lua",
            "if mine and call('XACK', stream, 'workers', entry) == 1 then",
            "call('XACK', stream, 'workers', entry)\n  if mine then",
        ),
    ),
    "owner_check": guard(
        20,
        "who froze and was replaced cannot retry or fail what another one runs",
        (
            LUA + "settle.lua",
            "if op == 'R' or op == 'D' or careful then mine = is_owner(stream, entry, checked[ARGV[a + 3]]) end",
            "if careful then mine = is_owner(stream, entry, checked[ARGV[a + 3]]) end",
        ),
    ),
    "delivery_count": guard(
        20,
        "nor can an earlier delivery to the same consumer",
        (
            LUA + "settle.lua",
            "return not p.err and #p == 1 and p[1][4] == count",
            "return not p.err and #p == 1",
        ),
    ),
    "release_owner": guard(
        20,
        "nor can it give that back",
        (
            LUA + "release.lua",
            "'workers', ARGV[i], ARGV[i], 1, ARGV[1])",
            "'workers', ARGV[i], ARGV[i], 1)",
        ),
        (LUA + "release.lua", "#p == 1 and p[1][4] == tonumber(ARGV[i + 1]) then", "#p == 1 then"),
    ),
    "types_first": guard(
        21,
        "a key of another type is found before anything is written",
        (
            LUA + "settle.lua",
            "if is ~= kind and is ~= 'none' then error('SETTLE-TYPE ' .. key .. ' is a ' .. is) end",
            "",
        ),
    ),
    "numbers_first": guard(
        21,
        "so is a number that Redis will not take",
        (
            LUA + "settle.lua",
            "if not n or n > MOST or not (text == '0' or find(text, '^[1-9]%d*$')) then",
            "if false then",
        ),
        (LUA + "settle.lua", "  if n < least or n > most then error('SETTLE-NUMBER ' .. text) end\n", ""),
    ),
    "entries_first": guard(
        21,
        "so is an entry that is none",
        (LUA + "settle.lua", "  must_be_entry(ARGV[at + 2])\n", ""),
    ),
    "telling_may_fail": guard(
        21,
        "what only tells of an end cannot break it off",
        (LUA + "settle.lua", "redis.pcall('HINCRBY', KEYS[2], STATE[op], n)", "call('HINCRBY', KEYS[2], STATE[op], n)"),
    ),
    "bisect": guard(
        21,
        "one bad outcome does not take its neighbours along",
        (
            WORKER + "settle.py",
            "await self._bisect(chunk, error)",
            "[self._ended(run, item, False) for run, item in chunk]",
        ),
    ),
    "minimal_letter": guard(
        21,
        "the bad outcome itself ends as a dead letter",
        (
            WORKER + "settle.py",
            "await self._commit([(run, _minimal(run, item, str(error)))])",
            "await self._commit([(run, item)])",
        ),
    ),
    "careful_message": guard(
        22,
        "an outcome from another server does not end a stranger's message under the same entry",
        (LUA + "settle.lua", "if mine and careful then mine = holds(", "if false then mine = holds("),
    ),
    "careful_owner": guard(
        22,
        "nor a success what another one owns there",
        (LUA + "settle.lua", "if op == 'R' or op == 'D' or careful then", "if op == 'R' or op == 'D' then"),
    ),
    "careful_elsewhere": guard(
        22,
        "a worker knows that its server is another one than when it read",
        (
            WORKER + "settle.py",
            'items = [item if run.server == server else item._replace(op=item.op + "!") for run, item in chunk]',
            "items = [item for run, item in chunk]",
        ),
    ),
    "careful_spool": guard(
        22,
        "so does who settles what an earlier process left",
        (WORKER + "settle.py", "if outcome.server == self._driver.run_id", "if True"),
    ),
    "outcome_token": guard(
        23,
        "an outcome sent again by itself is told as written",
        (
            LUA + "settle.lua",
            "local same = op ~= 'R' and first_line(redis.pcall('GET', result)) == first_line(ARGV[a + 5])",
            "local same = false",
        ),
    ),
    "settle_mark": guard(
        23,
        "a chunk sent again is told what it was told, also where no result is kept",
        (
            LUA + "settle.lua",
            "return answer_before and not string.find(answer_before, ',' .. n .. ':lost,', 1, true)",
            "return false",
        ),
    ),
    "not_now": guard(
        23,
        "outcomes that Redis did not execute are sent again, and not given up",
        (STORE + "failures.py", "if not_now is not None:", "if False:"),
    ),
    "unsent_bound": guard(
        24,
        "no more than twice the slots waits to be written",
        (WORKER + "bounds.py", "if settler.unsent >= 2 * slots or settler", "if settler"),
    ),
    "unsent_bytes_bound": guard(
        24,
        "nor more than 64 MB",
        (WORKER + "bounds.py", " or settler.unsent_bytes >= MOST_UNSENT_BYTES:", ":"),
    ),
    "spool": guard(
        24,
        "finished work outlives a worker that ends while Redis is away",
        (
            WORKER + "worker.py",
            "self.spooled = spooling.spool_unsent(self.settler, self._spool_folder, self.app.name)",
            "self.settler.take_unsent()",
        ),
    ),
    "spool_status": guard(
        24,
        "the exit status says that something was not written",
        (
            WORKER + "child.py",
            "return EXIT_SPOOLED if worker.unwritten else EXIT_OK",
            "return EXIT_OK",
        ),
        (WORKER + "child.py", 'channel.send("bye", worker.unwritten > 0, ', 'channel.send("bye", False, '),
    ),
    "spool_settled": guard(
        24,
        "the next start writes what was spooled",
        (
            WORKER + "worker.py",
            "await spooling.settle_spooled(self.settler, self._spool_folder, self.app.name)",
            "pass",
        ),
    ),
    "spool_fsync": guard(
        24,
        "a spool file is on the disk before it has its name",
        ("streamwork/spool.py", "os.fsync(file.fileno())", "pass"),
    ),
    "cancel_what_it_removed": guard(
        25,
        "a cancel that races a success does not make a second outcome",
        (
            LUA + "cancel.lua",
            "if call('ZREM', KEYS[1], id) == 1 or (",
            "call('ZREM', KEYS[1], id)\nif true or (",
        ),
    ),
    "cancel_of_the_ended": guard(
        25,
        "a cancel that comes too late leaves no mark behind",
        (LUA + "cancel.lua", "if is_over(ARGV[5]) then", "if false then"),
    ),
    "fence_grows": guard(
        29,
        "each delivery of a message has another fence",
        (
            LUA + "adopt.lua",
            "call('XCLAIM', KEYS[1], 'workers', me, 0, entry)",
            "call('XCLAIM', KEYS[1], 'workers', me, 0, entry, 'RETRYCOUNT', delivered)",
        ),
        (LUA + "adopt.lua", "delivered + 1, suspicion", "delivered, suspicion"),
    ),
    "fence_after_loss": guard(
        29,
        "also where the group was lost that counted them",
        (
            LUA + "restore.lua",
            "{'TIME', 1, 'RETRYCOUNT', instant, 'FORCE', 'JUSTID'}",
            "{'TIME', 1, 'FORCE', 'JUSTID'}",
        ),
    ),
}
