-- Answer a beat that found no liveness key (rule 11).
-- KEYS  1 alive · 2 consumers
-- ARGV  1 consumer · 2 TTL ms
-- Returns  "ok", "revived" (the key had lapsed, nobody took the entries) or "fenced" (the consumer was declared dead)
-- Atomic because  a reaper may take the consumer between the look and the write.
-- First write PEXPIRE, so it works at maxmemory (rule 3).
if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 1 then return 'ok' end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 'fenced' end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[2])
return 'revived'
