-- Remove a consumer's name from a lane's group, only where it owns nothing (rule 15).
-- KEYS  1 lane
-- ARGV  1 consumer
-- Returns  1 it is not there (any more), 0 it still owns entries, or there is no group
-- Atomic because  XGROUP DELCONSUMER drops pending entries for good.
local p = redis.pcall('XPENDING', KEYS[1], 'workers', '-', '+', 1, ARGV[1])
if p.err or #p > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'workers', ARGV[1])
return 1
