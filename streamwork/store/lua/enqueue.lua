-- Put a chunk of task messages on their lanes, once, however often the chunk is sent (rule 1).
-- KEYS  1 sender mark · 2 lanes · 3 added · 4 control · then per lane: stream, bell
-- ARGV  1 chunk number · 2 sender mark's life ms · 3 most lanes · 4 now ms · 5 number of lanes ·
--       then one lane name per lane · then per message: lane's position (1 …), body
-- Returns  the entry ids joined by "," · error ENQUEUE-GAP, ENQUEUE-LANES, ENQUEUE-TYPE (nothing was written)
-- Atomic because  the chunk number and the entries must appear together, and a lane never without its group (rule 4).
-- Cost  O(messages). The first write is an XGROUP CREATE or XADD, which maxmemory refuses whole (rule 3).
local call = redis.call
local number = tonumber(ARGV[1])
local mark = call('GET', KEYS[1])
if mark then
  local cut = string.find(mark, '\n', 1, true)
  local last = tonumber(string.sub(mark, 1, cut - 1))
  if last == number then return string.sub(mark, cut + 1) end
  if number ~= last + 1 then return redis.error_reply('ENQUEUE-GAP chunk ' .. number .. ' after ' .. last) end
end
local function must_be(key, kind)
  local is = call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then error('ENQUEUE-TYPE ' .. key .. ' is a ' .. is) end
end
local lanes = tonumber(ARGV[5])
local counts, missing = {}, {}
must_be(KEYS[3], 'hash')
for i = 1, lanes do
  counts[i] = 0
  must_be(KEYS[3 + 2 * i], 'stream')
  must_be(KEYS[4 + 2 * i], 'list')
  if call('HEXISTS', KEYS[2], ARGV[5 + i]) == 0 then missing[#missing + 1] = i end
end
if #missing > 0 then
  must_be(KEYS[4], 'stream')
  if call('HLEN', KEYS[2]) + #missing > tonumber(ARGV[3]) then
    return redis.error_reply('ENQUEUE-LANES ' .. ARGV[3])
  end
  for j = 1, #missing do
    local i, stream = missing[j], KEYS[3 + 2 * missing[j]]
    local made = redis.pcall('XGROUP', 'CREATE', stream, 'workers', '0', 'MKSTREAM')
    if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
    call('HSET', KEYS[2], ARGV[5 + i], ARGV[4])
  end
end
local ids, n = {}, 0
for a = 6 + lanes, #ARGV, 2 do
  local i = tonumber(ARGV[a])
  n = n + 1
  ids[n] = call('XADD', KEYS[3 + 2 * i], '*', 'd', ARGV[a + 1])
  counts[i] = counts[i] + 1
end
local joined = table.concat(ids, ',')
call('SET', KEYS[1], number .. '\n' .. joined, 'PX', ARGV[2])
for i = 1, lanes do
  call('HINCRBY', KEYS[3], ARGV[5 + i], counts[i])
  if call('LLEN', KEYS[4 + 2 * i]) == 0 then call('RPUSH', KEYS[4 + 2 * i], '1') end
end
for j = 1, #missing do
  call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', 'lane', 'v', ARGV[5 + missing[j]])
end
return joined
