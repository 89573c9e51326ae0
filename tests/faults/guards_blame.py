"""Guards of what is blamed, what is lost and who hangs: rules 17-19."""

from __future__ import annotations

from tests.faults.guard import LUA, WORKER, Change, Guard

BLAME: dict[str, Guard] = {
    "blame": Guard(
        17,
        "a death is blamed on what had started, and on nothing else",
        (
            Change(
                LUA + "take.lua", "local blamed = mode == 'dead' and started[entry]", "local blamed = mode ~= 'reap'"
            ),
        ),
    ),
    "noted start": Guard(
        17,
        "a start is noted where the supervisor sees it, before the body runs",
        (
            Change(
                WORKER + "runner.py",
                "self._table.start(slot, lane.queue.number, run.entry, lane.name_bytes)",
                "pass",
            ),
        ),
    ),
    "counts read": Guard(
        17,
        "crashes from before a retry and since add up",
        (
            Change(
                WORKER + "runner.py",
                "crashes=past.crashes + run.attempt.crashes, lost=past.lost + run.attempt.lost",
                "crashes=run.attempt.crashes, lost=run.attempt.lost",
            ),
        ),
    ),
    "counts carried": Guard(
        17,
        "a retry carries the crashes along",
        (
            Change(
                WORKER + "endings.py",
                "past = run.attempt._replace(attempt=run.attempt.attempt + 1)",
                "past = Attempt(run.attempt.attempt + 1)",
            ),
        ),
    ),
    "set aside": Guard(
        17,
        "what may die for the last time is set aside until it can run alone",
        (Change(WORKER + "runner.py", "if run.attempt.crashes < MOST_CRASHES - 1:", "if True:"),),
    ),
    "alone": Guard(
        17,
        "what was set aside begins when nothing runs beside it",
        (
            Change(
                WORKER + "consumer.py",
                "        if self.in_hand():\n            await self._wait_for_change()\n            return\n",
                "",
            ),
        ),
    ),
    "quarantine": Guard(
        17,
        "what killed its process three times runs no more",
        (Change(WORKER + "runner.py", "if run.attempt.crashes >= MOST_CRASHES:", "if False:"),),
    ),
    "lost": Guard(
        17,
        "what vanished with ten workers runs no more",
        (Change(WORKER + "runner.py", "if run.attempt.lost >= MOST_LOSSES:", "if False:"),),
    ),
    "fence": Guard(
        17,
        "the delivery count only grows, so that each delivery is told from all others",
        (
            Change(
                LUA + "adopt.lua",
                "call('XCLAIM', KEYS[1], 'workers', me, 0, entry)",
                "call('XCLAIM', KEYS[1], 'workers', me, 0, entry, 'RETRYCOUNT', 1)",
            ),
            Change(LUA + "adopt.lua", "delivered + 1, suspicion}", "1, suspicion}"),
        ),
    ),
    "two looks": Guard(
        18,
        "an entry is not called lost at the first look: its read may be on its way",
        (Change(WORKER + "reclaimer.py", "if seen is None or (lane.stream, entry) in seen]", "]"),),
    ),
    "audit": Guard(
        18,
        "an entry that its live owner never saw is found",
        (Change(WORKER + "selfcheck.py", "seen = await self._audit(seen)", "seen = set()"),),
    ),
    "pdeathsig": Guard(
        19,
        "a process dies with its supervisor",
        (Change(WORKER + "child.py", "ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)", "pass"),),
    ),
    "end of file": Guard(
        19,
        "a process whose supervisor is gone drains",
        (
            Change(
                WORKER + "child.py",
                "self._worker.drain()\n                await asyncio.sleep(_AFTERLIFE_S)\n",
                "await asyncio.sleep(_AFTERLIFE_S)\n",
            ),
        ),
    ),
    "loop stamp": Guard(
        19,
        "a process whose loop stands still is killed",
        (Change(WORKER + "watch.py", "if still_ms > limit_ms:", "if False:"),),
    ),
    "read stamp": Guard(
        19,
        "a process that reads no more with free slots is killed",
        (Change(WORKER + "watch.py", "and quiet_ms > _quiet_limit_ms(replica):", "and False:"),),
    ),
    "awake": Guard(
        19,
        "nobody is called hung because all of them were stopped",
        (Change(WORKER + "watch.py", "            self._awake_since_ms = now_ms\n", "            pass\n"),),
    ),
    "hand-over": Guard(
        19,
        "a supervisor hands over at once what a dead process of its own had",
        (Change(WORKER + "departure.py", "if replica.home is not None:", "if False:"),),
    ),
}
