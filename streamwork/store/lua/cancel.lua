-- Cancel a task message that waits in due or in a line, or ask for it where it is on a lane (rule 25).
-- include: flow+room+lines
-- include: finish
-- KEYS  1 due · 2 due:body · 3 cancelled · 4 control · 5 result · 6 counts · 7 reply stream · 8 dead · 9 moved ·
--       10 the lane it was sent to · 11 restoring · 12 kept · 13 added · 14 flow · 15 permits · 16 parked · 17 parked:body ·
--       18 turns · 19 rates · 20 starts · 21 wake · 22 flow:state · 23 unique · 24 paused · 25 journal
-- ARGV  1 task id · 2 who asks · 3 result record for a cancelled one · 4 keep ms · 5 its first entry, "" = not known ·
--       6 name of that lane · 7 " terminate" where a run that goes on is to be ended, else "" ·
--       8 journal record for a cancelled one, "" = it was in none of these places a moment ago
-- Returns  "cancelled" (it will not run; also where it was cancelled so before, as when the answer was lost),
--          "requested" (it is marked; the end that comes first counts) or "ended"
-- Atomic because  only what this script removed itself may be committed as cancelled here.
-- A mark has no TTL and goes with the message's end: where the entry shows that it has ended, none is left behind.
local call = redis.call
local id, keep = ARGV[1], tonumber(ARGV[4])
if not keep or keep < 1 or keep > 9007199254740991 or keep ~= math.floor(keep) then error('CANCEL-NUMBER ' .. ARGV[4]) end
for key, kind in pairs({[KEYS[2]] = 'hash', [KEYS[3]] = 'hash', [KEYS[4]] = 'stream', [KEYS[6]] = 'hash'}) do
  local is = call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then error('CANCEL-TYPE ' .. key .. ' is a ' .. is) end
end

local function is_over(entry)
  if call('EXISTS', KEYS[5]) == 1 or call('ZSCORE', KEYS[8], id) then return true end
  if entry == '' or call('HEXISTS', KEYS[9], id) == 1 then return false end
  if #call('XRANGE', KEYS[10], entry, entry) == 0 then
    return redis.pcall('HEXISTS', KEYS[12], ARGV[6] .. '/' .. entry) ~= 1  -- trimmed, and perhaps still in hand
  end
  local pending = redis.pcall('XPENDING', KEYS[10], 'workers', entry, entry, 1)
  if pending.err or #pending > 0 then return false end
  -- Its group was lost: whether it has ended is not known before all is restored.
  if type(redis.pcall('HGET', KEYS[11], ARGV[6])) == 'string' then return false end
  local groups = call('XINFO', 'GROUPS', KEYS[10])
  for i = 1, #groups do
    local g = {}
    for j = 1, #groups[i], 2 do g[groups[i][j]] = groups[i][j + 1] end
    if g['name'] == 'workers' then
      return #call('XRANGE', KEYS[10], '(' .. g['last-delivered-id'], entry, 'COUNT', 1) == 0
    end
  end
  return false
end

local k = {
  due = KEYS[1], due_body = KEYS[2], cancelled = KEYS[3], control = KEYS[4], moved = KEYS[9], added = KEYS[13],
  flow = KEYS[14], permits = KEYS[15], parked = KEYS[16], parked_body = KEYS[17], turns = KEYS[18], rates = KEYS[19],
  starts = KEYS[20], wake = KEYS[21], flow_state = KEYS[22], unique = KEYS[23], paused = KEYS[24],
}
local has_limits = redis.pcall('HLEN', k.flow)
if type(has_limits) == 'number' and has_limits > 0 then flow = open_flow() end
k.has_flow = flow ~= nil
local foreign = flow and flow.foreign(k)
if foreign then error('CANCEL-TYPE ' .. foreign) end
local parked = k.has_flow and flow.parked(k, id)
if call('ZREM', KEYS[1], id) == 1 or (parked and flow.leave(k, id, parked)) then
  call('HDEL', KEYS[2], id)
  call('SET', KEYS[5], ARGV[3], 'PX', keep)
  call('HINCRBY', KEYS[6], 'cancelled', 1)
  if ARGV[8] ~= '' then redis.pcall('XADD', KEYS[25], '*', 'j', ARGV[8]) end
  redis.pcall('XADD', KEYS[7], 'NOMKSTREAM', 'MAXLEN', '~', 10000, '*', 'i', id, 'v', ARGV[3])
  finish(k, id, nil, false, false, true)
  if k.has_flow then flow.flush(k) end
  return 'cancelled'
end
if is_over(ARGV[5]) then
  local record, token = redis.pcall('GET', KEYS[5]), string.match(ARGV[3], '^[^\n]*\n')
  local was_here = type(record) == 'string' and token and string.sub(record, 1, #token) == token
  return was_here and 'cancelled' or 'ended'
end
-- Whoever asks next without that does not take it back.
local mark = ARGV[7] == '' and call('HGET', KEYS[3], id) or ''
if string.sub(mark, -10) ~= ' terminate' then call('HSET', KEYS[3], id, ARGV[2] .. ARGV[7]) end
call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', 'cancel', 'v', id)
if ARGV[7] ~= '' then call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', 'terminate', 'v', id) end
return 'requested'
