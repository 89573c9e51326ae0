-- Begin or go on with a tap: a second group on each lane, that reads along without owning anything (rule 30).
-- KEYS  1 tap · 2 taps · 3 added · then the lanes
-- ARGV  1 name · 2 ms that it lives on · 3 id behind which a new one begins (`$` = now) · 4 now ms · then per lane: its
--       name, and the id up to which the caller knows that it has read (empty = not known)
-- Returns  1 where the tap is new
-- Atomic because  lanes that are there at its beginning are read from then on, and those made later from their first entry.
-- What the tap knows of a lane is the number of messages that were ever added up to where it stands: with it, a read
-- tells how many it has missed. Nothing of `workers` is touched.
local call, name = redis.call, ARGV[1]
local is_new = call('HSETNX', KEYS[2], name, ARGV[4])
call('SET', KEYS[1], '1', 'PX', ARGV[2])
for i = 4, #KEYS do
  local lane, start = ARGV[2 * i - 3], ARGV[2 * i - 2]
  local known = name .. ' ' .. lane
  if start == '' then
    start = is_new == 1 and ARGV[3] or '0'
  else
    -- A stream that was made anew may have begun below what was read of the one before.
    local above = redis.pcall('XRANGE', KEYS[i], '(' .. start, '+', 'COUNT', 1)
    if above.err or #above == 0 then start = '0' end
  end
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[i], 'tap:' .. name, start)
  if not made.err then
    if start == '$' then call('HSET', KEYS[2], known, call('HGET', KEYS[3], lane) or '0')
    elseif start == '0' then call('HSETNX', KEYS[2], known, '0')
    elseif is_new == 1 then call('HDEL', KEYS[2], known) end
  elseif string.find(made.err, 'OOM', 1, true) then
    return made
  end
end
return is_new
