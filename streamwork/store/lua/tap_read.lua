-- Read what a tap has not read yet, the highest lane first, and tell what it has missed (rule 30).
-- KEYS  1 tap · 2 taps · 3 added · 4 lanes · 5 trimmed · then the lanes
-- ARGV  1 name · 2 ms that it lives on · 3 most messages · 4 most bytes · then per lane its name
-- Returns  {} where it has to be joined first · else {number of lanes there are, then per lane: {id up to which was read
--          before ("" = there is no such stream), messages, number missed, note of what was trimmed ("" = none)}}
-- Atomic because  several processes may share a tap: what one has read is not missed by another.
-- Read without acknowledgement: nothing is pending, so nothing holds the trim back. Missed is what was added, and was
-- neither read nor is there: where nothing is left at or below its place, all that is there is still to be read.
local call, group = redis.call, 'tap:' .. ARGV[1]
local left_ms = call('PTTL', KEYS[1])
if left_ms < 0 then return {} end
local function position(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then return '' end
  for i = 1, #groups do
    local g = {}
    for j = 1, #groups[i], 2 do g[groups[i][j]] = groups[i][j + 1] end
    if g['name'] == group then return g['last-delivered-id'] end
  end
  return nil
end
local from = {}
for i = 6, #KEYS do
  from[i] = position(KEYS[i])
  if not from[i] then return {} end
end
if left_ms < tonumber(ARGV[2]) / 2 then call('PEXPIRE', KEYS[1], ARGV[2]) end
local left, room, found = tonumber(ARGV[3]), tonumber(ARGV[4]), {call('HLEN', KEYS[4])}
for i = 6, #KEYS do
  local lane = ARGV[i - 1]
  local known, rows, is_all, missed = ARGV[1] .. ' ' .. lane, {}, false, 0
  local before = call('HGET', KEYS[2], known)
  local seen = before and tonumber(before)
  if seen and from[i] ~= '' and #call('XRANGE', KEYS[i], '-', from[i], 'COUNT', 1) == 0 then
    missed = math.max(0, tonumber(call('HGET', KEYS[3], lane) or '0') - seen - call('XLEN', KEYS[i]))
    seen = seen + missed
  end
  while from[i] ~= '' and left > 0 and room > 0 and not is_all do
    local count = math.min(left, 10)
    local reply = call('XREADGROUP', 'GROUP', group, 'tap', 'COUNT', count, 'NOACK', 'STREAMS', KEYS[i], '>')
    local some = reply and reply[1][2] or {}
    for j = 1, #some do
      rows[#rows + 1] = some[j]
      for k = 2, #some[j][2], 2 do room = room - #some[j][2][k] end
    end
    left, is_all = left - #some, #some < count
  end
  if is_all then
    local added = tonumber(call('HGET', KEYS[3], lane) or '0')
    if seen and added > seen + #rows then missed = missed + added - seen - #rows end
    seen = added
  elseif seen then
    seen = seen + #rows
  end
  seen = seen and string.format('%.0f', seen)
  if seen and seen ~= before then call('HSET', KEYS[2], known, seen) end
  found[#found + 1] = {from[i], rows, missed, call('HGET', KEYS[5], lane) or ''}
end
return found
