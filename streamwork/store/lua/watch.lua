-- Make a client's reply stream exist, and keep it for its life (rule 34).
-- KEYS  1 reply stream
-- ARGV  1 life ms
-- Returns  1 it was made now, 0 it was there
-- Atomic because  a client that dies between the two writes would leave a stream without a TTL.
-- First write PEXPIRE, so that one can wait for results at maxmemory too (rule 3).
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 1 then return 0 end
redis.call('XADD', KEYS[1], '*', 'i', '', 'v', '')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
