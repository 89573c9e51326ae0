-- Register a consumer before its first read (rule 11).
-- KEYS  1 consumers · 2 alive
-- ARGV  1 consumer · 2 registration · 3 TTL ms
-- Returns  1
-- Atomic because  a registered consumer without a liveness key would be taken for dead.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
return 1
