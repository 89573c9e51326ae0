-- Pause or resume a queue, a task or a group of it.
-- KEYS  1 paused · 2 control
-- ARGV  1 field · 2 what is known of the pause; empty = resume
-- Returns  1 where that changed anything, else 0
-- Atomic because  the mark and the signal that tells of it appear together, in one order for all who hear.
-- Cost  O(1). A pause may be refused at maxmemory, a resumption is not.
local changed
if ARGV[2] == '' then
  changed = redis.call('HDEL', KEYS[1], ARGV[1])
else
  changed = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
end
-- Also where nothing changed: whoever missed the signal hears it now.
redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'e', ARGV[2] == '' and 'resume' or 'pause', 'v', ARGV[1])
return changed
