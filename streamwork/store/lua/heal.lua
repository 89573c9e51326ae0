-- Recreate a lost consumer group where it left off (rule 8).
-- KEYS  1 lane · 2 lanes · 3 low
-- ARGV  1 lane name · 2 now ms
-- Returns  the id it was created at, or "there" if another one was first
-- Atomic because  the low mark is read and used at once. Never "$": what was added before would be skipped.
local low = redis.call('HGET', KEYS[3], ARGV[1]) or '0'
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], 'workers', low, 'MKSTREAM')
if type(made) == 'table' and made.err then
  if string.find(made.err, 'BUSYGROUP', 1, true) then return 'there' end
  return made
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return low
