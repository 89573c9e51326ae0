-- Make a lost consumer group anew for what comes, and note what was added before for restore.lua (rule 8).
-- include: unkeep
-- KEYS  1 lane · 2 lanes · 3 low · 4 restoring · 5 control · 6 kept · 7 due · 8 due:body · 9 moved · 10 suspects ·
--       11 settled · 12 added
-- ARGV  1 lane name · 2 now ms
-- Returns  the id behind which everything is looked at again · "there" if another one was first · "gone n" where there
--          was no stream, with n unsettled messages on it · "gone -" where not even that is known, as after FLUSHALL
-- Atomic because  what lies behind the group's first id and what is noted as to be restored must meet without a gap.
-- The low mark alone would run again what was settled above the oldest pending entry: only the journal knows of it.
-- First write PERSIST, which changes nothing here, so that a full Redis can be healed and drained (rule 3).
local call, pcall = redis.call, redis.pcall
call('PERSIST', KEYS[4])
local info, last, length = pcall('XINFO', 'STREAM', KEYS[1]), '0', 0
if not info.err then
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] elseif info[i] == 'length' then length = info[i + 1] end
  end
  local groups = call('XINFO', 'GROUPS', KEYS[1])
  for i = 1, #groups do
    for j = 1, #groups[i], 2 do
      if groups[i][j] == 'name' and groups[i][j + 1] == 'workers' then return 'there' end
    end
  end
end
local low, at = '0', '0'
if length > 0 then
  low, at = pcall('HGET', KEYS[3], ARGV[1]), last
  if type(low) ~= 'string' then low = '0' end
  -- A mark ahead of everything is from before a clock step or a deletion: nothing may hide behind it.
  local is_above = pcall('XRANGE', KEYS[1], '(' .. low, '+', 'COUNT', 1)
  if low ~= last and (is_above.err or #is_above == 0) then low = '0' end
  if low ~= last then
    -- The instant tells this loss from the next one, and is above every delivery count so far (rules 17, 29).
    local t = call('TIME')
    local noted = pcall('HSET', KEYS[4], ARGV[1], low .. ' ' .. last .. ' ' .. t[1] .. string.format('%06d', t[2]))
    if type(noted) == 'table' then at = low end  -- a key of another type: better twice than never
  end
else
  -- Nothing is left of the history: after a clock step backwards, new ids would lie below the old mark.
  pcall('HDEL', KEYS[3], ARGV[1])
  pcall('HDEL', KEYS[4], ARGV[1])
end
-- What was trimmed under its owner cannot be given back as an entry; below the mark nobody looks for it either.
local k = {
  kept = KEYS[6], due = KEYS[7], due_body = KEYS[8], moved = KEYS[9], suspects = KEYS[10], settled = KEYS[11],
  control = KEYS[5],
}
-- No more than were in hand at once: a copy is made of what is pending (rule 31), and goes with its end.
local places = pcall('HKEYS', KEYS[6])
for i = 1, #places do
  local entry = string.sub(places[i], 1, #ARGV[1] + 1) == ARGV[1] .. '/' and string.sub(places[i], #ARGV[1] + 2)
  if entry and low == '0' and #call('XRANGE', KEYS[1], entry, entry) > 0 then
    call('HDEL', KEYS[6], places[i])
  elseif entry then
    unkeep(k, KEYS[1], ARGV[1], entry)
  end
end
local made = pcall('XGROUP', 'CREATE', KEYS[1], 'workers', at, 'MKSTREAM')
if type(made) == 'table' and made.err then return made end
-- Where all was deleted, supervisors may have seen a list without it meanwhile: nobody else would tell them.
if pcall('HSET', KEYS[2], ARGV[1], ARGV[2]) == 1 then
  pcall('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'e', 'lane', 'v', ARGV[1])
end
pcall('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'e', 'returned', 'v', ARGV[1])
if not info.err then return low end
-- What was on it does not wait any more, and must not be counted as if it did.
local added, settled = pcall('HGET', KEYS[12], ARGV[1]), pcall('HGET', KEYS[11], ARGV[1])
if type(added) ~= 'string' or not tonumber(added) then return 'gone -' end
pcall('HSET', KEYS[11], ARGV[1], added)
settled = type(settled) == 'string' and tonumber(settled) or 0
return 'gone ' .. string.format('%.0f', math.max(0, added - settled))
