-- Register a consumer before its first read (rule 11).
-- KEYS  1 consumers · 2 alive
-- ARGV  1 consumer · 2 registration · 3 TTL ms
-- Returns  1
-- Atomic because  a registered consumer without a liveness key would be taken for dead.
-- First write PEXPIRE: a full Redis is drained by workers, so they may start there (rule 3).
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
return 1
