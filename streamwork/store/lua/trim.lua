-- Trim the journal and note what went (rules 30, 32).
-- include: note
-- KEYS  1 journal · 2 trimmed
-- ARGV  1 first id to keep · 2 most entries trimmed in one call (0 = all below that id) · 3 now ms · 4 why
-- Returns  entries trimmed
-- Atomic because  the trim and its note must appear together, see note.lua.
-- Cost  O(trimmed). First write XTRIM, so that a full Redis is made room in (rules 3, 32).
local call, trimmed = redis.call, 0
if ARGV[2] == '0' then
  trimmed = call('XTRIM', KEYS[1], 'MINID', '=', ARGV[1])
else
  trimmed = call('XTRIM', KEYS[1], 'MINID', '~', ARGV[1], 'LIMIT', ARGV[2])
end
if trimmed > 0 then note(KEYS[2], KEYS[1], 'journal', ARGV[1], ARGV[3], ARGV[4]) end
return trimmed
