-- Recreate a lost consumer group where it left off (rule 8).
-- KEYS  1 lane · 2 lanes · 3 low
-- ARGV  1 lane name · 2 now ms
-- Returns  the id it was created at, or "there" if another one was first
-- Atomic because  the low mark is read and used at once. Never "$": what was added before would be skipped.
local low = redis.call('HGET', KEYS[3], ARGV[1]) or '0'
-- Nothing is left of the history: after a clock step backwards, new ids would lie below the old mark.
if redis.call('XLEN', KEYS[1]) == 0 then low = '0' end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], 'workers', low, 'MKSTREAM')
if type(made) == 'table' and made.err then
  if string.find(made.err, 'BUSYGROUP', 1, true) then return 'there' end
  return made
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
if low == '0' then redis.call('HDEL', KEYS[3], ARGV[1]) end
return low
