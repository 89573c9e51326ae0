-- Put a dead letter with other arguments in the place of one, and note who did.
-- KEYS  1 dead · 2 dead:body · 3 journal
-- ARGV  1 task id · 2 SHA-1 of the dead letter as it was seen · 3 the new one · 4 journal record
-- Returns  "" it is changed · "gone" it is no dead letter any more · "changed" it is another one by now
-- Atomic because  what is retried or edited meanwhile must not come back, or be lost.
-- Cost  O(1) and the hash of one letter. A letter grows, so a full Redis refuses it: the first write is a HSET.
local call, id = redis.call, ARGV[1]
local letter = call('ZSCORE', KEYS[1], id) and call('HGET', KEYS[2], id)
if not letter then return 'gone' end
if redis.sha1hex(letter) ~= ARGV[2] then return 'changed' end
call('HSET', KEYS[2], id, ARGV[3])
redis.pcall('XADD', KEYS[3], '*', 'j', ARGV[4])
return ''
