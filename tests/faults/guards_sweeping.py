"""Guards of what looks after limits: rule 28's maintainer, which frees members without a live record."""

from __future__ import annotations

from tests.faults.guard import LUA, WORKER, Guard, guard

SWEEP, LINES, SWEEPER = LUA + "sweep.lua", LUA + "lines.lua", WORKER + "sweeper.py"

SWEEPING: dict[str, Guard] = {
    "sweep_spares_waiting": guard(
        28,
        "what waits in due or in a line keeps what it holds",
        (SWEEP, "if redis.pcall('ZSCORE', k.due, id) or flow.parked(k, id) then return true end", ""),
    ),
    "sweep_spares_moved": guard(
        28,
        "so does what has moved on since somebody looked",
        (SWEEP, "if #KEYS < 18 or string.sub(place, 1, #lane + 1) ~= lane .. '/' then return true end", ""),
    ),
    "sweep_spares_running": guard(
        28,
        "so does what runs",
        (SWEEP, "if #pending > 0 then return true end", ""),
    ),
    "sweep_spares_unread": guard(
        28,
        "so does what nobody has read yet",
        (
            SWEEP,
            "return #found > 0 and (not last or #call('XRANGE', KEYS[18], '(' .. last, entry, 'COUNT', 1) > 0)",
            "return false",
        ),
    ),
    "sweep_waits_for_healing": guard(
        28,
        "of a lane that is being restored nobody knows yet what is lost",
        (SWEEP, "if redis.pcall('HEXISTS', KEYS[17], lane) == 1 then return true end", ""),
    ),
    "sweep_spares_names": guard(
        28,
        "a name of who is there stays",
        (SWEEP, "(till == '0' and call('HEXISTS', k.flow, id) == 0)", "till == '0'"),
    ),
    "sweep_spares_spans": guard(
        28,
        "a name for a span stays for that span",
        (SWEEP, "(till ~= '0' and tonumber(till) * 1000 < now)", "till ~= '0'"),
    ),
    "sweep_spares_rates": guard(
        28,
        "tokens that were spent stay spent",
        (SWEEP, "if not till or tonumber(till) < now then", "if true then"),
    ),
    "sweep_forgets_starts": guard(
        28,
        "a window that is over leaves nothing behind",
        (SWEEP, "flow.forget_starts(k, one)", ""),
    ),
    "sweep_counts_again": guard(
        28,
        "a number that was changed by hand does not let more in, nor keep all out, for ever",
        (SWEEPER, 'if await self._driver.run(sweep(keys, "counts", [_MOST_COMPARED])):', "if False:"),
    ),
    "sweep_counts_compared": guard(
        28,
        "nor is what has changed since",
        (SWEEP, "if limits[j][1] ~= 'u' and flow.has(place, limits[j][1]) then", "if false then"),
    ),
    "sweep_counts_wake": guard(
        28,
        "and the next one hears where there is room then",
        (SWEEP, "if changed > 0 then wake_all(lines) end", ""),
    ),
    "swept_messages": guard(
        28,
        "what a lost message held is freed",
        (
            SWEEPER,
            "freed = lost = await self._sweep_flow()",
            "freed = lost = 0 * len(await self._scan('HSCAN', keys.flow))",
        ),
    ),
    "swept_soon": guard(
        28,
        "and where one is lost the others are looked for soon",
        (SWEEPER, "return _SOON_S if lost or self._is_urgent or self._lost else None", "return None"),
    ),
    "swept_names": guard(
        28,
        "so is a name of nobody",
        (SWEEPER, '(("unique", keys.unique), ("rates", keys.rates)):', '(("rates", keys.rates),):'),
    ),
    "swept_rates": guard(
        28,
        "so is a bucket that is full again",
        (SWEEPER, '(("unique", keys.unique), ("rates", keys.rates)):', '(("unique", keys.unique),):'),
    ),
    "sweep_goes_round": guard(
        28,
        "it comes to all that is held, however much that is",
        (SWEEPER, "self._cursors[key] = cursor", 'self._cursors[key] = b"0"'),
    ),
    "sweep_counts_who_waits": guard(
        28,
        "nor is one of a line that is right",
        (SWEEP, "add('-' .. (name or ''))", ""),
    ),
    "sweep_counts_lines": guard(
        28,
        "the same of who waits",
        (
            SWEEP,
            "if are[field] ~= tonumber(n) then",
            "if string.sub(field, 1, 1) ~= '-' and are[field] ~= tonumber(n) then",
        ),
    ),
    "sweep_counts_turns": guard(
        28,
        "and of how many of a group do",
        (
            SWEEP,
            "return correct(k.permits, are) + correct(k.turns, turns), lines",
            "return correct(k.permits, are), lines",
        ),
    ),
    "window_by_slots": guard(
        28,
        "groups take turns for as many places as there are slots to fill",
        (
            SWEEPER,
            'await self._driver.run(plain("HSET", keys.flow_state, window, size))',
            "pass",
        ),
    ),
    "window_by_tags": guard(
        28,
        "and slots that cannot take a message are no places for it",
        (SWEEPER, "for slots, tags in workers if needed <= tags)", "for slots, _ in workers)"),
    ),
    "window_for_nobody": guard(
        28,
        "and none where nobody could run it",
        (SWEEPER, "max(_LEAST_PLACES, _PLACES_PER_SLOT * n) if n else 0", "max(_LEAST_PLACES, _PLACES_PER_SLOT * n)"),
    ),
}
