-- Put a chunk of task messages with limits on their lanes, into a line or into due, once (rules 1, 4, 28).
-- include: backlog
-- include: flow+room+lines
-- KEYS  1 sender mark · 2 lanes · 3 added · 4 control · 5 cancelled · 6 due · 7 due:body · 8 moved · 9 flow · 10 permits ·
--       11 parked · 12 parked:body · 13 turns · 14 rates · 15 starts · 16 wake · 17 flow:state · 18 unique · 19 paused · then per
--       lane: stream, bell · with a limit: parked:body, settled, due
-- ARGV  1 chunk number · 2 sender mark's life ms · 3 most lanes · 4 now ms · 5 number of lanes · lane names · then per
--       message: lane's position (1 …), id, when ("" now, "+ms" from now on, ms since 1970), attempt record, limits,
--       body · with a limit: most in the backlog
-- Returns  per message, joined by ",": its entry · "" it waits in a line or in due · "=id" it is the one with that id, which
--          has not ended · "!id" refused, since that one has not ended · behind "~" the id of one that it replaces, which is
--          marked as cancelled · error ENQUEUE-GAP, ENQUEUE-BACKLOG, ENQUEUE-LANES,
--          ENQUEUE-TYPE, SCHEDULE-NUMBER (nothing was written)
-- Atomic because  the chunk number, the messages and what they hold must appear together (I1).
-- Cost  O(messages × limits × log members). The first write is one that maxmemory refuses whole (rule 3).
local call, number, lanes = redis.call, tonumber(ARGV[1]), tonumber(ARGV[5])
local mark = call('GET', KEYS[1])
if mark then
  local cut = string.find(mark, '\n', 1, true)
  local before = tonumber(string.sub(mark, 1, cut - 1))
  if before == number then return string.sub(mark, cut + 1) end
  if number ~= before + 1 then return redis.error_reply('ENQUEUE-GAP chunk ' .. number .. ' after ' .. before) end
end
local is_bounded = #KEYS > 19 + 2 * lanes
local last = is_bounded and #ARGV - 1 or #ARGV
local k = {
  added = KEYS[3], control = KEYS[4], due = KEYS[6], due_body = KEYS[7], moved = KEYS[8], flow = KEYS[9],
  permits = KEYS[10], parked = KEYS[11], parked_body = KEYS[12], turns = KEYS[13], rates = KEYS[14], starts = KEYS[15],
  wake = KEYS[16], flow_state = KEYS[17], unique = KEYS[18], paused = KEYS[19], streams = {}, bells = {},
}
local function must_be(key, kind)
  local is = call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then error('ENQUEUE-TYPE ' .. key .. ' is a ' .. is) end
  return is
end
must_be(KEYS[2], 'hash')
must_be(KEYS[5], 'hash')
flow = open_flow()
local foreign = flow.foreign(k)
if foreign then error('ENQUEUE-TYPE ' .. foreign) end
local new, missing, lost = 0, {}, {}
for i = 1, lanes do
  local is_known = call('HEXISTS', KEYS[2], ARGV[5 + i]) == 1
  if must_be(KEYS[18 + 2 * i], 'stream') == 'none' or not is_known then
    missing[#missing + 1], lost[i] = i, is_known
    new = new + (is_known and 0 or 1)
  end
end
if call('HLEN', KEYS[2]) + new > tonumber(ARGV[3]) then return redis.error_reply('ENQUEUE-LANES ' .. ARGV[3]) end
local now = flow.now()
local now_ms = math.floor(now / 1000)
local at, asked, records = {}, {}, {}
for a = 6 + lanes, last, 6 do
  local when = ARGV[a + 2]
  asked[a] = flow.unpacked(ARGV[a + 4])
  records[#records + 1] = {asked[a]}
  if when ~= '' then
    local is_span = string.sub(when, 1, 1) == '+'
    local ms = tonumber(is_span and string.sub(when, 2) or when)
    if not ms or ms < 0 or ms > 9007199254740991 or ms ~= math.floor(ms) then error('SCHEDULE-NUMBER ' .. when) end
    at[a] = is_span and now_ms + ms or ms
  end
end

-- Who has the name of a unique message: nobody, or an id that has not ended, or whose time is not over.
local function owner_of(name)
  local id, till = string.match(flow.owner(k, name) or '', '^(%x+) (%d+)$')
  if not id then return nil end
  if till == '0' then return flow.is_known(k, id) and id or nil end
  return tonumber(till) > now_ms and id or nil
end
-- {"u", name, policy, ms or 0 = until it ends, 1 = until it starts}; policy r = refuse, c = the other one's handle,
-- p = in its place, d = in its place while that is in due.
local function claim(id, limit)
  local owner, policy = owner_of(limit[2]), limit[3]
  if owner and policy == 'r' then return '!' .. owner end
  if owner and policy == 'c' then return '=' .. owner end
  return nil, owner and (policy == 'p' or call('ZSCORE', k.due, owner)) and owner
end
if is_bounded then
  -- What joins another message, or is refused beside it, takes no room.
  local coming = 0
  for a, limits in pairs(asked) do
    local answer
    for i = 1, #limits do answer = answer or (limits[i][1] == 'u' and claim(ARGV[a + 1], limits[i])) end
    if not answer then coming = coming + 1 end
  end
  local refusal = coming > 0 and beyond(KEYS[3], coming)
  if refusal then return refusal end
end

-- What a window forgets is no write that a full Redis refuses, and all behind it would be let through.
flow.reserve(k, (last - 5 - lanes) / 6)
flow.foresee(k, records)
for j = 1, #missing do
  local i = missing[j]
  local group = redis.pcall('XGROUP', 'CREATE', KEYS[18 + 2 * i], 'workers', '0', 'MKSTREAM')
  if type(group) == 'table' and group.err and not string.find(group.err, 'BUSYGROUP', 1, true) then return group end
  call('HSET', KEYS[2], ARGV[5 + i], ARGV[4])
end

local answers, counts, first = {}, {}, nil
local function enter(a, limits)
  local i, id, lane = tonumber(ARGV[a]), ARGV[a + 1], ARGV[5 + tonumber(ARGV[a])]
  local packed, body = ARGV[a + 4], ARGV[a + 5]
  if at[a] then
    call('ZADD', k.due, string.format('%.0f', at[a]), id)
    call('HSET', k.due_body, id, lane .. '\n' .. ARGV[a + 3] .. '\n' .. body)
    flow.placed(id, packed, '')
    if not first or at[a] < first then first = at[a] end
    return ''
  end
  local lacks, keeps = flow.admit(k, limits, now, '')
  if lacks then
    flow.park(k, id, lacks, limits, {lane = lane, past = ARGV[a + 3], body = body})
    flow.placed(id, packed, keeps)
    return ''
  end
  local entry = call('XADD', KEYS[18 + 2 * i], '*', 'd', body)
  counts[i] = (counts[i] or 0) + 1
  flow.placed(id, packed, lane .. '/' .. entry)
  return entry
end

for a = 6 + lanes, last, 6 do
  local id, limits = ARGV[a + 1], asked[a]
  local answer, replaced
  for i = 1, #limits do
    if limits[i][1] == 'u' and not answer then
      local old
      answer, old = claim(id, limits[i])
      replaced = replaced or old
    end
  end
  if not answer then
    answer = enter(a, limits)
    for i = 1, #limits do
      if limits[i][1] == 'u' then flow.own(limits[i][2], id, limits[i][4] > 0 and now_ms + limits[i][4] or 0) end
    end
    if replaced then
      call('HSET', KEYS[5], replaced, id)
      redis.pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'cancel', 'v', replaced)
      answer = answer .. '~' .. replaced
    end
  end
  answers[#answers + 1] = answer
end
flow.flush(k)
local told = table.concat(answers, ',')
call('SET', KEYS[1], number .. '\n' .. told, 'PX', ARGV[2])
-- The messages are in: whatever else stands under these keys must not turn that into an error.
for i, n in pairs(counts) do
  redis.pcall('HINCRBY', KEYS[3], ARGV[5 + i], n)
  if redis.pcall('LLEN', KEYS[19 + 2 * i]) == 0 then redis.pcall('RPUSH', KEYS[19 + 2 * i], '1') end
end
for j = 1, #missing do
  local event = lost[missing[j]] and 'lost' or 'lane'
  redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', event, 'v', ARGV[5 + missing[j]])
end
local head = first and call('ZRANGE', k.due, 0, 0, 'WITHSCORES')
if head and tonumber(head[2]) >= first then
  redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', string.format('%.0f', first))
end
return told
