-- Free what belongs to task messages that are nowhere any more, and what time has emptied (rule 28).
-- include: flow+room+lines
-- KEYS  1 due · 2 due:body · 3 moved · 4 added · 5 control · 6 flow · 7 permits · 8 parked · 9 parked:body · 10 turns ·
--       11 rates · 12 starts · 13 wake · 14 flow:state · 15 unique · 16 paused · 17 restoring · then the lane's
--       stream, where there is one
-- ARGV  1 what: flow, unique, rates or counts · 2 lane, "" = none · then task ids or fields; counts: only
--       where no more messages than this have limits
-- Returns  how many were freed
-- Atomic because  a message that moves on between the look and the removal would lose what it holds.
-- Cost  O(arguments), each as much as the end of a message. First write PERSIST, which changes nothing, so it works at
-- maxmemory (rule 3).
-- It is for what was lost by hand or with a server (DEL of a lane, a failover): in normal life every end frees its own.
local call = redis.call
local k = {
  due = KEYS[1], due_body = KEYS[2], moved = KEYS[3], added = KEYS[4], control = KEYS[5], flow = KEYS[6],
  permits = KEYS[7], parked = KEYS[8], parked_body = KEYS[9], turns = KEYS[10], rates = KEYS[11], starts = KEYS[12],
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

-- Correct the numbers of a hash that differ from these; what stands behind a number stays. Answers how many did.
local function correct(key, are)
  local kept, changed = call('HGETALL', key), 0
  for i = 1, #kept, 2 do
    local field, n, rest = kept[i], string.match(kept[i + 1], '^(%d+)(.*)$')
    if are[field] ~= tonumber(n) then
      changed = changed + 1
      if are[field] then call('HSET', key, field, are[field] .. (rest or '')) else call('HDEL', key, field) end
    end
    are[field] = nil
  end
  for field, n in pairs(are) do changed = changed + call('HSET', key, field, n .. (key == k.turns and ' 0' or '')) end
  return changed
end

-- Compare how many are said to have and to wait for each limit with what there is, and correct it. The scripts change both in
-- one step, so only hands can have changed one; a limit would stay full for ever.
local function recount(most)
  if call('HLEN', k.flow) > most or call('ZCARD', k.parked) > most then return 0 end
  local are, turns, groups = {}, {}, {}
  local function add(field, to)
    to = to or are
    to[field] = (to[field] or 0) + 1
  end
  local flat = call('HGETALL', k.flow)
  for i = 2, #flat, 2 do
    local cut = string.find(flat[i], '\n', 1, true)
    local place, limits = string.sub(flat[i], 1, (cut or 1) - 1), cut and flow.unpacked(string.sub(flat[i], cut + 1)) or {}
    groups[flat[i - 1]] = ''
    for j = 1, #limits do
      if limits[j][1] ~= 'u' and flow.has(place, limits[j][1]) then add('+' .. limits[j][2]) end
      if limits[j][1] == 'g' then groups[flat[i - 1]] = limits[j][2] end
    end
  end
  local lines = call('ZRANGE', k.parked, 0, -1)
  for i = 1, #lines do
    local name, order, id = string.match(lines[i], '^(.-)%z(%d*)%z(.*)$')
    add('-' .. (name or ''))
    if name and groups[id] and not string.find(name, '^[gk]') then
      add(name .. '\0' .. string.sub(order, 32) .. '\0' .. groups[id], turns)
    end
  end
  return correct(k.permits, are) + correct(k.turns, turns), lines
end
local function wake_all(lines)
  local seen = {}
  for i = 1, #lines do
    local name = string.match(lines[i], '^(.-)%z') or ''
    if not seen[name] then
      seen[name] = true
      flow.wake(k, name, now, 1)
    end
  end
end

local freed = 0
if ARGV[1] == 'counts' then
  local changed, lines = recount(tonumber(ARGV[3]))
  if changed > 0 then wake_all(lines) end
  freed = changed
end
for a = 3, ARGV[1] ~= 'counts' and #ARGV or 2 do
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
