-- Cancel a task message that waits in due, or ask for it where it is on a lane (rule 25).
-- KEYS  1 due · 2 due:body · 3 cancelled · 4 control · 5 result · 6 counts · 7 reply stream
-- ARGV  1 task id · 2 who asks · 3 result record for a cancelled one · 4 keep ms
-- Returns  "cancelled" (it will not run), "requested" (it is marked; the end that comes first counts) or "ended"
-- Atomic because  only what this script removed itself may be committed as cancelled here.
local call = redis.call
if call('ZREM', KEYS[1], ARGV[1]) == 1 then
  call('HDEL', KEYS[2], ARGV[1])
  call('SET', KEYS[5], ARGV[3], 'PX', ARGV[4])
  call('HINCRBY', KEYS[6], 'cancelled', 1)
  redis.pcall('XADD', KEYS[7], 'NOMKSTREAM', 'MAXLEN', '~', 10000, '*', 'i', ARGV[1], 'v', ARGV[3])
  return 'cancelled'
end
if call('EXISTS', KEYS[5]) == 1 then return 'ended' end
call('HSET', KEYS[3], ARGV[1], ARGV[2])
call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', 'cancel', 'v', ARGV[1])
return 'requested'
