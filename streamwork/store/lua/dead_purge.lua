-- Free a dead letter for good, and all that its message still has.
-- KEYS  1 dead · 2 dead:body · 3 result · 4 journal
-- ARGV  1 task id · 2 SHA-1 of the dead letter as it was seen, "" = whatever stands there · 3 journal record
-- Returns  "" it is gone for good · "gone" it is no dead letter any more · "changed" it is another one by now
-- Atomic because  only what this script removed itself may be noted as purged: it may be retried meanwhile (I1).
-- Cost  O(log dead). First write ZREM, so that it makes room in a full Redis (rule 3). Limits it has none: its end freed them.
local call, id = redis.call, ARGV[1]
local letter = call('HGET', KEYS[2], id)
if ARGV[2] ~= '' and letter and redis.sha1hex(letter) ~= ARGV[2] then return 'changed' end
if call('ZREM', KEYS[1], id) ~= 1 then return 'gone' end
call('HDEL', KEYS[2], id)
call('DEL', KEYS[3])
redis.pcall('XADD', KEYS[4], '*', 'j', ARGV[3])
return ''
