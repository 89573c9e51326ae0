-- Remove a tap: its group on each lane, and what is known of it (rule 30).
-- KEYS  1 tap · 2 taps · then the lanes
-- ARGV  1 name · 2 `dead` = only where nobody has used it for so long that its liveness is gone, `any` = in any case
-- Returns  1 where it was removed
-- Atomic because  one that comes back between the look and the removal would read nothing any more.
-- First write DEL, so that it works when Redis is full (rule 3).
local call, name = redis.call, ARGV[1]
if ARGV[2] == 'dead' and call('EXISTS', KEYS[1]) == 1 then return 0 end
call('DEL', KEYS[1])
for i = 3, #KEYS do redis.pcall('XGROUP', 'DESTROY', KEYS[i], 'tap:' .. name) end
local fields, was = call('HKEYS', KEYS[2]), 0
for i = 1, #fields do
  if fields[i] == name or string.sub(fields[i], 1, #name + 1) == name .. ' ' then was = call('HDEL', KEYS[2], fields[i]) end
end
return was
