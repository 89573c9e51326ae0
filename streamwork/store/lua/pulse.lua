-- Renew the reaper's pulse, or take the duty over, or stand by (rule 14).
-- KEYS  1 pulse · 2 grace
-- ARGV  1 reaper · 2 pulse life ms · 3 grace ms · 4 a standby takes over when the pulse has less than this left, ms
-- Returns  {1 on duty / 0 standing by, 1 if the pulse had lapsed, ms left of the pulse}
-- Atomic because  two reapers must not both find the pulse lapsed and one of them skip the grace.
-- A lapsed pulse means that Redis stood still, restarted or lost its clock: live workers could not beat either, so
-- nobody is taken until grace is over. Only one command writes when the pulse is healthy.
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 1 then return {1, 0, tonumber(ARGV[2])} end
elseif holder then
  local left = redis.call('PTTL', KEYS[1])
  if left > tonumber(ARGV[4]) then return {0, 0, left} end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {1, 0, tonumber(ARGV[2])}
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
return {1, 1, tonumber(ARGV[2])}
