-- Move due task messages to their lanes (rule 26).
-- include: flow+room+lines
-- KEYS  1 due · 2 due:body · 3 lanes · 4 added · 5 moved · 6 control · 7 flow · 8 permits · 9 parked · 10 parked:body ·
--       11 turns · 12 rates · 13 starts · 14 wake · 15 flow:state · 16 unique · 17 paused · then per lane: stream,
--       bell
-- ARGV  1 most messages · 2 number of lanes · lane names
-- Returns  {moved, when to look next in ms or -1, 1 if a lane was not among the declared ones}
-- Atomic because  a message is either due or on its lane (I1); ZREM answering 1 is the right to add it.
-- Cost  O(log due) per message. First write ZREM, or PERSIST, so it works at maxmemory (rule 3). Time is the server's: never early.
-- Types are looked at before the first ZREM; what can fail behind it puts the message back, or only tells of it.
local call, pcall = redis.call, redis.pcall
local function is(key, kind)
  local found = call('TYPE', key).ok
  return found == kind or found == 'none'
end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local position, lanes = {}, tonumber(ARGV[2])
local k = {
  due = KEYS[1], due_body = KEYS[2], added = KEYS[4], moved = KEYS[5], control = KEYS[6], flow = KEYS[7],
  permits = KEYS[8], parked = KEYS[9], parked_body = KEYS[10], turns = KEYS[11], rates = KEYS[12], starts = KEYS[13],
  wake = KEYS[14], flow_state = KEYS[15], unique = KEYS[16], paused = KEYS[17], streams = {}, bells = {},
}
for i = 1, lanes do
  -- A key of another type is as good as undeclared: what belongs there stays in due instead of being lost half-way.
  if is(KEYS[16 + 2 * i], 'stream') then
    local lane = ARGV[2 + i]
    position[lane], k.streams[lane], k.bells[lane] = i, KEYS[16 + 2 * i], KEYS[17 + 2 * i]
  end
end
for n, kind in pairs({[2] = 'hash', [5] = 'hash'}) do
  if not is(KEYS[n], kind) then error('PROMOTE-TYPE ' .. KEYS[n] .. ' is no ' .. kind) end
end
local ids = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local moved, unknown, added = 0, 0, {}

local function announce(i, lane)
  local is_known = pcall('HEXISTS', KEYS[3], lane)
  if is_known == 1 then return end
  pcall('XGROUP', 'CREATE', KEYS[16 + 2 * i], 'workers', '0', 'MKSTREAM')
  pcall('HSET', KEYS[3], lane, now)
  pcall('XADD', KEYS[6], 'MAXLEN', '~', 1000, '*', 'e', 'lane', 'v', lane)
end

local has_limits = pcall('HLEN', k.flow)
local has_flow = type(has_limits) == 'number' and has_limits > 0
-- Lines of rates that have a token now, and those where a wake came to its bound.
local us = t[1] * 1000000 + t[2]
local woken = pcall('ZRANGEBYSCORE', k.wake, '-inf', us, 'LIMIT', 0, 20)
if has_flow or (not woken.err and #woken > 0) then flow = open_flow() end
local foreign = flow and flow.foreign(k)
if foreign then error('PROMOTE-TYPE ' .. foreign) end
-- A permit or a line is asked for first, and a full Redis would refuse that: this write changes nothing.
if has_flow then call('PERSIST', k.flow) end
-- Answers whether a message with limits may go on; else it waits in a line from now on.
local records = has_flow and #ids > 0 and flow.records(k, ids) or {}
if flow then flow.foresee(k, records) end
local function may_go(record, id, lane, past, message)
  if not record then return true end
  local lacks, keeps = flow.admit(k, record[1], us, record[3])
  if not lacks then return true end
  flow.placed(id, record[2], keeps)
  call('ZREM', KEYS[1], id)
  call('HDEL', KEYS[2], id)
  flow.park(k, id, lacks, record[1], {lane = lane, past = past, body = message})
  return false
end
for n = 1, woken.err and 0 or #woken do
  call('ZREM', k.wake, woken[n])
  flow.wake(k, woken[n], us)
end

for n = 1, #ids do
  local id = ids[n]
  local body = call('HGET', KEYS[2], id)
  local first = body and string.find(body, '\n', 1, true)
  local second = first and string.find(body, '\n', first + 1, true)
  if not second then
    -- Not ours: left here, a few of these at the head would hold back all that is behind them.
    call('ZREM', KEYS[1], id)
    call('HDEL', KEYS[2], id)
  else
    local lane = string.sub(body, 1, first - 1)
    local i = position[lane]
    local score = i and call('ZSCORE', KEYS[1], id)
    local past, message = string.sub(body, first + 1, second - 1), string.sub(body, second + 1)
    if not i then
      unknown = 1
    elseif has_flow and not may_go(records[n], id, lane, past, message) then
      moved = moved + 1
    elseif call('ZREM', KEYS[1], id) == 1 then
      announce(i, lane)
      local entry = pcall('XADD', KEYS[16 + 2 * i], '*', 'a', past, 'd', message)
      if type(entry) == 'table' then
        call('ZADD', KEYS[1], score, id)
        if has_flow and records[n] then flow.placed(id, records[n][2], '*') end
        unknown = 1
      else
        call('HDEL', KEYS[2], id)
        -- Only a message that can be read frees this when it ends; the rest ends under a name of its entry.
        if string.find(message, id, 1, true) then call('HSET', KEYS[5], id, lane .. '\n' .. entry) end
        if has_flow and records[n] then flow.placed(id, records[n][2], lane .. '/' .. entry) end
        added[i] = (added[i] or 0) + 1
        moved = moved + 1
      end
    end
  end
end
if flow then flow.flush(k) end
for i, n in pairs(added) do
  pcall('HINCRBY', KEYS[4], ARGV[2 + i], n)
  if pcall('LLEN', KEYS[17 + 2 * i]) == 0 then pcall('RPUSH', KEYS[17 + 2 * i], '1') end
end
local head = call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local next_at = head[2]
local line = pcall('ZRANGE', k.wake, 0, 0, 'WITHSCORES')
local at = not line.err and line[2] and math.ceil(line[2] / 1000)
if at and (not next_at or at < tonumber(next_at)) then next_at = string.format('%.0f', at) end
return {moved, next_at or '-1', unknown}
