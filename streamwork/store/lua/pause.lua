-- Pause or resume a queue, a task or a group of it.
-- KEYS  1 paused · 2 control · 3 parked · 4 wake
-- ARGV  1 field · 2 what is known of the pause; empty = resume
-- Returns  1 where that changed anything, else 0
-- Atomic because  the mark and the signal that tells of it appear together, in one order for all who hear.
-- Cost  O(log members). A pause may be refused at maxmemory, a resumption is not.
local changed
if ARGV[2] == '' then
  changed = redis.call('HDEL', KEYS[1], ARGV[1])
else
  changed = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
end
-- Also where nothing changed: whoever missed the signal hears it now.
redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'e', ARGV[2] == '' and 'resume' or 'pause', 'v', ARGV[1])
if ARGV[2] ~= '' or string.sub(ARGV[1], 1, 6) ~= 'group:' then return changed end
-- The promoter looks at the line in which the group waits (flow.lua).
local line = 'g:' .. string.sub(ARGV[1], 7)
local first = redis.pcall('ZRANGEBYLEX', KEYS[3], '[' .. line .. '\0', '(' .. line .. '\1', 'LIMIT', 0, 1)
if first.err or #first == 0 then return changed end
local t = redis.call('TIME')
redis.pcall('ZADD', KEYS[4], string.format('%.0f', t[1] * 1000000 + t[2]), line)
redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', string.format('%.0f', t[1] * 1000))
return changed
