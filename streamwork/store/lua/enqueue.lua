-- Put a chunk of task messages on their lanes, once, however often the chunk is sent (rule 1).
-- include: backlog
-- KEYS  1 sender mark · 2 lanes · 3 added · 4 control · then per lane: stream, bell · with a limit: parked:body, settled,
--       due
-- ARGV  1 chunk number · 2 sender mark's life ms · 3 most lanes · 4 now ms · 5 number of lanes ·
--       then one lane name per lane · then per message: lane's position (1 …), body ·
--       with a limit: most in the backlog
-- Returns  the entry ids joined by "," · error ENQUEUE-GAP, ENQUEUE-BACKLOG, ENQUEUE-LANES, ENQUEUE-TYPE (nothing was
--       written)
-- Atomic because  the chunk number and the entries must appear together, and a lane never without its group (rule 4).
-- Cost  O(messages); five commands for one message, since each call from Lua costs as much as the XADD itself.
-- The first write is an XADD or XGROUP CREATE, which maxmemory refuses whole (rule 3). A lane that is there has its
-- group, so only a missing stream asks for more.
local call, pcall = redis.call, redis.pcall
local number, lanes = tonumber(ARGV[1]), tonumber(ARGV[5])
local mark = call('GET', KEYS[1])
if mark then
  local cut = string.find(mark, '\n', 1, true)
  local last = tonumber(string.sub(mark, 1, cut - 1))
  if last == number then return string.sub(mark, cut + 1) end
  if number ~= last + 1 then return redis.error_reply('ENQUEUE-GAP chunk ' .. number .. ' after ' .. last) end
end

local last = #ARGV
if #KEYS > 4 + 2 * lanes then
  last = last - 1
  local refusal = beyond(KEYS[3], (last - 5 - lanes) / 2)
  if refusal then return refusal end
end
local ids, counts, made, lost = nil, {}, nil, {}
if lanes == 1 and last == 8 then
  -- The common case: one message. Answers false where the stream is missing, and an error where it is none.
  local id = call('XADD', KEYS[5], 'NOMKSTREAM', '*', 'd', ARGV[8])
  if id then ids, counts[1] = id, 1 end
end
if not ids then
  local missing = {}
  for i = 1, lanes do
    counts[i] = 0
    local is = call('TYPE', KEYS[3 + 2 * i]).ok
    if is == 'none' or call('HEXISTS', KEYS[2], ARGV[5 + i]) == 0 then missing[#missing + 1] = i end
    if is ~= 'stream' and is ~= 'none' then error('ENQUEUE-TYPE ' .. KEYS[3 + 2 * i] .. ' is a ' .. is) end
  end
  if #missing > 0 then
    local new = 0
    for j = 1, #missing do
      local i = missing[j]
      local was_there = call('HEXISTS', KEYS[2], ARGV[5 + i])
      new = new + 1 - was_there
      lost[i] = was_there == 1
    end
    if call('HLEN', KEYS[2]) + new > tonumber(ARGV[3]) then
      return redis.error_reply('ENQUEUE-LANES ' .. ARGV[3])
    end
    for j = 1, #missing do
      local i = missing[j]
      local group = pcall('XGROUP', 'CREATE', KEYS[3 + 2 * i], 'workers', '0', 'MKSTREAM')
      if type(group) == 'table' and group.err and not string.find(group.err, 'BUSYGROUP', 1, true) then return group end
      call('HSET', KEYS[2], ARGV[5 + i], ARGV[4])
    end
    made = missing
  end
  local list, n = {}, 0
  for a = 6 + lanes, last, 2 do
    local i = tonumber(ARGV[a])
    n = n + 1
    list[n] = call('XADD', KEYS[3 + 2 * i], '*', 'd', ARGV[a + 1])
    counts[i] = counts[i] + 1
  end
  ids = table.concat(list, ',')
end

call('SET', KEYS[1], number .. '\n' .. ids, 'PX', ARGV[2])
-- The messages are in: whatever else stands under these keys must not turn that into an error.
for i = 1, lanes do
  local added = pcall('HINCRBY', KEYS[3], ARGV[5 + i], counts[i])
  if added == 1 and not made and call('HEXISTS', KEYS[2], ARGV[5 + i]) == 0 then
    -- The first of its lane, and the stream was there: someone made it by hand, and no reader would ever know of it.
    pcall('XGROUP', 'CREATE', KEYS[3 + 2 * i], 'workers', '0')
    call('HSET', KEYS[2], ARGV[5 + i], ARGV[4])
    made = {i}
  end
  if pcall('LLEN', KEYS[4 + 2 * i]) == 0 then pcall('RPUSH', KEYS[4 + 2 * i], '1') end
end
if made then
  for j = 1, #made do
    -- A lane that is listed and has no stream was deleted with all that was on it: no reader may meet that before it is
    -- made anew here, so this is where it is told.
    pcall('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', lost[made[j]] and 'lost' or 'lane', 'v', ARGV[5 + made[j]])
  end
end
return ids
