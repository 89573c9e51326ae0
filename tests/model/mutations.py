"""Guards taken out of the product, one at a time: the model must notice each, by chance or in a scene of `scenes.py`.

Only what concerns several parties is here; the guards that one call can show are in `tests/faults/` and `tests/redis/`.
"""

from __future__ import annotations

import contextlib
import importlib
from importlib import resources
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple

from streamwork.store.scripts import ALL_SCRIPTS


class Mutation(NamedTuple):
    """One guard: what it keeps from happening, its rule, and what stands in its place.

    Attributes:
        rule: Number in the protocol.
        script: File in ``streamwork/store/lua`` without its ending, or one of Python, from ``streamwork`` on.
        on: The guard; stands in the file once.
        off: What stands there without it.
        moods: The trouble that shows it; every schedule has it, so that few are enough.
    """

    rule: int
    script: str
    on: str
    off: str
    moods: tuple[str, ...] = ()


_MINE = "if op == 'R' or op == 'D' or careful then mine = is_owner(stream, entry, checked[ARGV[a + 3]]) end"
_COUNTED = "if not p.err and #p == 1 and p[1][4] == tonumber(ARGV[i + 1]) then"

MUTATIONS = {
    "sender_numbers": Mutation(1, "enqueue", "local mark = call('GET', KEYS[1])", "local mark = nil", ("net",)),
    "sender_mark_kept": Mutation(
        1, "enqueue", "call('SET', KEYS[1], number .. '\\n' .. ids, 'PX', ARGV[2])", "", ("net",)
    ),
    "lane_told": Mutation(6, "enqueue", "lost[made[j]] and 'lost' or 'lane'", "'nothing'"),
    "healed_lane_told": Mutation(
        8, "heal", "if pcall('HSET', KEYS[2], ARGV[1], ARGV[2]) == 1 then",
        "if pcall('HSET', KEYS[2], ARGV[1], ARGV[2]) == 7 then",
    ),
    "group_from_the_end": Mutation(
        8, "heal", "if type(noted) == 'table' then at = low end", "call('HDEL', KEYS[4], ARGV[1])", ("group",)
    ),
    "group_from_the_start": Mutation(
        8, "heal", "local made = pcall('XGROUP', 'CREATE', KEYS[1], 'workers', at,",
        "local made = pcall('XGROUP', 'CREATE', KEYS[1], 'workers', '0',", ("group",),
    ),
    "journal_heeded": Mutation(8, "restore", "for i = 5, #ARGV do taken[ARGV[i]] = true end", "", ("group",)),
    "low_below_pending": Mutation(
        8, "maintain", "local oldest = pending > 0 and", "local oldest = false and", ("time",)
    ),
    "trim_below_pending": Mutation(30, "maintain", "local safe = low\n", "local safe = ARGV[2]\n", ("time",)),
    "take_only_the_dead": Mutation(
        14, "take", "if call('EXISTS', KEYS[6]) == 1 then return -2 end", "", ("pause", "time")
    ),
    "grace": Mutation(
        14, "take", "if call('EXISTS', KEYS[5]) == 1 then return -1 end", "", ("pause", "time")
    ),
    "give_back_only_ones_own": Mutation(15, "release", _COUNTED, "if true then", ("pause", "time", "net")),
    "drop_only_the_empty": Mutation(
        15, "drop_consumer", "if p.err or #p > 0 then return 0 end", "if p.err then return 0 end", ("crash", "net")
    ),
    "marked_lane_told": Mutation(15, "take", "redis.pcall('SADD', KEYS[2], lane)", "", ("crash", "net")),
    "adoption_by_age": Mutation(
        16, "adopt", "redis.pcall('XPENDING', KEYS[1], 'workers', '-', '+', ARGV[3], from)",
        "redis.pcall('XPENDING', KEYS[1], 'workers', 'IDLE', 3000, '-', '+', ARGV[3])", ("crash", "time"),
    ),
    "audit_counts": Mutation(
        18, "adopt", "if #p == 1 and p[1][4] == tonumber(ARGV[i + 1]) then", "if #p == 1 then", ("net", "time")
    ),
    "gate": Mutation(
        20, "settle", "if mine and call('XACK', stream, 'workers', entry) == 1 then",
        "call('XACK', stream, 'workers', entry)\n  if mine then", ("pause", "time", "retry"),
    ),
    "owner_check": Mutation(
        20, "settle", _MINE, "if careful then mine = is_owner(stream, entry, checked[ARGV[a + 3]]) end",
        ("pause", "time", "retry"),
    ),
    "chunk_told_apart": Mutation(
        23, "settle",
        "local function record_of(n) return '\\n' .. ARGV[starts[n] + 3] .. '\\n' .. ARGV[starts[n] + 4] end",
        "local function record_of(n) return '' end", ("pause", "time", "net"),
    ),
    "outcome_token": Mutation(
        23, "settle", "local same = op ~= 'R' and first_line(redis.pcall('GET', result)) == first_line(ARGV[a + 5])\n"
        "    if not same and not was_committed(n) then", "if true then", ("net",),
    ),
    "cancel_only_what_it_removed": Mutation(
        25, "cancel", "if call('ZREM', KEYS[1], id) == 1 or (", "if true or (", ("cancel",)
    ),
    "cancel_frees_due": Mutation(
        25, "cancel", "call('HDEL', KEYS[2], id)\n  call('SET'", "call('SET'", ("cancel", "retry")
    ),
    "cancel_of_the_ended": Mutation(
        25, "cancel", "if call('EXISTS', KEYS[5]) == 1 or call('ZSCORE', KEYS[8], id) then return true end", "",
        ("cancel",),
    ),
    "promoted_once": Mutation(26, "promote", "elseif call('ZREM', KEYS[1], id) == 1 then", "else", ("retry", "time")),
    "finish_moved": Mutation(
        26, "finish", "if was_moved then redis.call('HDEL', k.moved, id) end", "", ("retry", "time")
    ),
    "finish_suspects": Mutation(
        17, "finish", "if is_suspect then redis.call('HDEL', k.suspects, place) end", "", ("crash",)
    ),
    "finish_cancelled": Mutation(
        10, "finish", "if has_marks then redis.call('HDEL', k.cancelled, id) end", "", ("cancel",)
    ),
    "settled_counted": Mutation(33, "settle", "redis.pcall('HINCRBY', KEYS[1], ARGV[5 + lane], n)", ""),
    "added_counted": Mutation(33, "promote", "pcall('HINCRBY', KEYS[4], ARGV[2 + i], n)", "", ("retry", "time")),
    "chunk_in_order": Mutation(6, "enqueue", "for a = 6 + lanes, last, 2 do", "for a = last - 1, 6 + lanes, -2 do"),
    "highest_first": Mutation(
        5, "worker/consumer.py", "for lane in lanes:\n            if taken",
        "for lane in reversed(lanes):\n            if taken",
    ),
    "oldest_first": Mutation(
        5, "worker/consumer.py", "for entry, fields in entries:", "for entry, fields in reversed(entries):"
    ),
    "all_tags": Mutation(
        4, "model/lane.py", "lane_tags(lane) <= offered", "(not lane_tags(lane) or lane_tags(lane) & offered)"
    ),
    "kept_copy": Mutation(
        31, "maintain", "return type(redis.pcall('HSET', KEYS[8], place,",
        "return type(redis.pcall('HLEN', KEYS[8])) == 'number' and #field.d, type(redis.pcall('HGET', KEYS[8], place,",
        ("keep", "full"),
    ),
    "kept_for_adopters": Mutation(
        31, "adopt", "local copy = unkeep(k, KEYS[1], lane, found[i][1])", "local copy = false",
        ("keep", "full", "crash"),
    ),
    "kept_for_the_dead": Mutation(
        31, "take", "local copy = unkeep(k, KEYS[1], lane, entry)", "local copy = false", ("keep", "full", "crash"),
    ),
    "kept_for_the_released": Mutation(
        31, "release", "local copy = unkeep(k, KEYS[1], ARGV[2], ARGV[i])", "local copy = false",
        ("keep", "full", "leave"),
    ),
    "kept_for_the_healer": Mutation(
        31, "heal", "    unkeep(k, KEYS[1], ARGV[1], entry)\n", "", ("keep", "full", "group"),
    ),
    "kept_no_more_pending": Mutation(
        31, "unkeep", "call('XACK', stream, 'workers', entry)", "", ("keep", "full", "crash"),
    ),
    "finish_kept": Mutation(
        31, "finish", "if is_kept then redis.call('HDEL', k.kept, place) end", "", ("keep", "full"),
    ),
    "early_trim_below_pending": Mutation(
        32, "maintain", "local cut = less(ARGV[2], safe) and ARGV[2] or safe", "local cut = ARGV[2]", ("full",),
    ),
    "schedule_numbers": Mutation(
        1, "schedule", "tonumber(ARGV[1]), call('GET', KEYS[1])", "tonumber(ARGV[1]), nil", ("later", "net"),
    ),
    "schedule_mark_kept": Mutation(
        1, "schedule", "call('SET', KEYS[1], number .. '\\n', 'PX', ARGV[2])", "", ("later", "net"),
    ),
    "schedule_by_server": Mutation(26, "schedule", "at[i] = is_span and now + ms or ms", "at[i] = ms", ("later",)),
    "schedule_body": Mutation(26, "schedule", "call('HSET', KEYS[3], ARGV[i], ARGV[i + 2])", "", ("later",)),
    "promoted_in_time": Mutation(26, "promote", "'-inf', now, 'LIMIT'", "'-inf', '+inf', 'LIMIT'", ("later",)),
    "spool_settled": Mutation(
        24, "worker/settle.py", "for outcome in outcomes:", "for outcome in outcomes[:0]:", ("leave",)
    ),
    "heard_lanes_kept": Mutation(6, "worker/keeper.py", ", *queue.heard_since(since)}", "}"),
    "sender_reset": Mutation(
        1, "broker/async_sender.py", "self._senders.pop(line, None) or Sender(self._config.max_lanes, self._limits)",
        "self._senders.setdefault(line, Sender(self._config.max_lanes, self._limits))", ("time",),
    ),
    "audit_twice": Mutation(
        18, "worker/reclaimer.py", "if seen is None or (lane.stream, entry) in seen]", "]", ("time", "net")
    ),
    "audited": Mutation(
        18, "worker/reclaimer.py", "for row in pending if not known(lane.name_bytes, row[0])}",
        "for row in pending if False}", ("net",),
    ),
    "young_beat": Mutation(
        12, "worker/consumer.py", "and SYSTEM_CLOCK.steady_ms() - self._table.beat_at_ms < self.half_ttl_ms", "",
        ("time", "pause"),
    ),
    "room_rechecked": Mutation(
        5, "worker/consumer.py", "room = self._room_now(name)\n        for stream", "room = count\n        for stream",
        ("time", "net"),
    ),
    "excess_released": Mutation(5, "worker/consumer.py", "if taken > room:", "if False:"),
    "suspect_alone": Mutation(17, "worker/consumer.py", "if self.in_hand():\n", "if False:\n", ("poison",)),
    "crashes_blamed": Mutation(17, "take", "if blamed then crashes = crashes + 1 else", "do", ("poison",)),
}  # fmt: skip


def _functions(scope, module):
    """Yield the functions that a module or a class of it has made, by their qualified names."""
    for member in list(vars(scope).values()):
        value = getattr(member, "fget", member)
        if getattr(value, "__module__", None) != module:
            continue
        if isinstance(value, FunctionType):
            yield value.__qualname__, value
        elif isinstance(value, type):
            yield from _functions(value, module)


@contextlib.contextmanager
def _python_without(mutation):
    """Give the module's own functions the code that they would have without the guard; whoever holds them sees it."""
    name = "streamwork." + mutation.script.removesuffix(".py").replace("/", ".")
    real = importlib.import_module(name)
    text = Path(real.__file__).read_text()
    assert text.count(mutation.on) == 1, f"not once in {mutation.script}: {mutation.on!r}"
    copy = ModuleType(name)
    exec(compile(text.replace(mutation.on, mutation.off), real.__file__, "exec"), copy.__dict__)
    changed, before = dict(_functions(copy, name)), []
    for qualified, function in _functions(real, name):
        other = changed[qualified].__code__
        if function.__code__ != other:
            before.append((function, function.__code__))
            function.__code__ = other
    assert before
    try:
        yield
    finally:
        for function, code in before:
            function.__code__ = code


def _without(mutation):
    folder = resources.files("streamwork.store") / "lua"
    text = (folder / f"{mutation.script}.lua").read_text()
    assert text.count(mutation.on) == 1, f"not once in {mutation.script}.lua: {mutation.on!r}"
    return text, text.replace(mutation.on, mutation.off)


@contextlib.contextmanager
def without(mutation):
    """Run what is inside without this guard."""
    if mutation.script.endswith(".py"):
        with _python_without(mutation):
            yield
        return
    text, changed = _without(mutation)
    touched = []
    for script in ALL_SCRIPTS:
        source = script.source.decode()
        if text in source:
            script.__dict__["source"] = source.replace(text, changed).encode()
            script.__dict__.pop("sha", None)
            touched.append(script)
    assert touched
    try:
        yield
    finally:
        for script in touched:
            script.__dict__.pop("source", None)
            script.__dict__.pop("sha", None)
