-- Free what belongs to task messages that are nowhere any more, and what time has emptied (rule 28).
-- include: flow+room+lines
-- KEYS  1 due · 2 due:body · 3 moved · 4 added · 5 control · 6 flow · 7 permits · 8 parked · 9 parked:body · 10 ring ·
--       11 rates · 12 starts · 13 wake · 14 flow:state · 15 unique · 16 paused · 17 restoring · then the lane's
--       stream, where there is one
-- ARGV  1 what: flow, unique, rates, held or waiting · 2 lane, "" = none · then task ids or fields; held:
--       per limit its name, the number that was kept, how many there are
-- Returns  how many were freed
-- Atomic because  a message that moves on between the look and the removal would lose what it holds.
-- Cost  O(arguments), each as much as the end of a message. First write PERSIST, which changes nothing, so it works at
-- maxmemory (rule 3).
-- It is for what was lost by hand or with a server (DEL of a lane, a failover): in normal life every end frees its own.
local call = redis.call
local k = {
  due = KEYS[1], due_body = KEYS[2], moved = KEYS[3], added = KEYS[4], control = KEYS[5], flow = KEYS[6],
  permits = KEYS[7], parked = KEYS[8], parked_body = KEYS[9], ring = KEYS[10], rates = KEYS[11], starts = KEYS[12],
  wake = KEYS[13], flow_state = KEYS[14], unique = KEYS[15], paused = KEYS[16],
}
flow = open_flow()
local foreign = flow.foreign(k)
if foreign then error('SWEEP-TYPE ' .. foreign) end
call('PERSIST', KEYS[6])
local lane, now = ARGV[2], flow.now()

local function last_delivered()
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[18])
  for i = 1, groups.err and 0 or #groups do
    local g = {}
    for j = 1, #groups[i], 2 do g[groups[i][j]] = groups[i][j + 1] end
    if g['name'] == 'workers' then return g['last-delivered-id'] end
  end
end
-- Whether the entry that a message had on the lane is still to be settled; unknown counts as yes.
local function is_open(entry)
  if redis.pcall('HEXISTS', KEYS[17], lane) == 1 then return true end
  local found = redis.pcall('XRANGE', KEYS[18], entry, entry)
  local pending = redis.pcall('XPENDING', KEYS[18], 'workers', entry, entry, 1)
  if pending.err then return not found.err and #found > 0 end
  if #pending > 0 then return true end
  local last = last_delivered()
  return #found > 0 and (not last or #call('XRANGE', KEYS[18], '(' .. last, entry, 'COUNT', 1) > 0)
end

local function is_alive(id)
  local place = string.match(redis.pcall('HGET', k.flow, id) or '', '^([^\n]*)\n')
  if not place then return false end
  if redis.pcall('ZSCORE', k.due, id) or flow.parked(k, id) then return true end
  if place == '' or place == '+' or place == '*' then return false end
  if #KEYS < 18 or string.sub(place, 1, #lane + 1) ~= lane .. '/' then return true end  -- it has moved on
  return is_open(string.match(place, '[%d-]+', #lane + 2))
end

-- Put a number right that is still what it was; answers 1 where it was wrong.
local function correct(field, was, is)
  if tonumber(was or 0) == tonumber(is) or (call('HGET', k.permits, field) or '0') ~= tostring(was) then return 0 end
  call('HSET', k.permits, field, tostring(is))
  return 1
end
local function in_line(name) return call('ZLEXCOUNT', k.parked, '[' .. name .. '\0', '(' .. name .. '\1') end

local freed = 0
for a = 3, ARGV[1] == 'held' and #ARGV or 2, 3 do
  freed = freed + correct('+' .. ARGV[a], ARGV[a + 1], ARGV[a + 2])
  flow.wake(k, string.sub(ARGV[a], 1, 2) == 'g:' and '*' or ARGV[a], now, 1)
end
for a = 3, ARGV[1] == 'waiting' and #ARGV or 2 do
  freed = freed + correct(ARGV[a], call('HGET', k.permits, ARGV[a]), in_line(string.sub(ARGV[a], 2)))
end
for a = 3, ARGV[1] ~= 'held' and ARGV[1] ~= 'waiting' and #ARGV or 2 do
  local one = ARGV[a]
  if ARGV[1] == 'flow' then
    if not is_alive(one) then
      flow.free(k, {one}, false)
      freed = freed + 1
    end
  elseif ARGV[1] == 'unique' then
    local id, till = string.match(call('HGET', k.unique, one) or '', '^(%x+) (%d+)$')
    local is_over = not id or (till == '0' and call('HEXISTS', k.flow, id) == 0)
    if is_over or (till ~= '0' and tonumber(till) * 1000 < now) then freed = freed + call('HDEL', k.unique, one) end
  else
    local till = string.match(call('HGET', k.rates, one) or '', '(%d+)$')
    if not till or tonumber(till) < now then
      freed = freed + call('HDEL', k.rates, one)
      if string.sub(one, 1, 2) == 'w:' then flow.forget_starts(k, one) end
    end
  end
end
flow.flush(k)
return freed
