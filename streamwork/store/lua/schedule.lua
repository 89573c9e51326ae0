-- Put a chunk of task messages into due, once, however often the chunk is sent (rules 1, 26).
-- include: backlog
-- KEYS  1 sender mark · 2 due · 3 due:body · 4 control · with a limit: added, parked:body, settled, due
-- ARGV  1 chunk number · 2 sender mark's life ms · then per message: id, when ("+ms" from now on, or ms since 1970), record ·
--       with a limit: most in the backlog
-- Returns  "" · error ENQUEUE-GAP, ENQUEUE-BACKLOG, SCHEDULE-NUMBER, SCHEDULE-TYPE (nothing was written)
-- Atomic because  the chunk number and the messages must appear together, and each id with its body (I1).
-- Cost  O(log due) per message. The first write is a ZADD, which maxmemory refuses whole (rule 3). "From now on" is by the
-- server's clock, as promotion is, so a producer whose clock is wrong makes nothing early.
local call = redis.call
local number, mark = tonumber(ARGV[1]), call('GET', KEYS[1])
if mark then
  local cut = string.find(mark, '\n', 1, true)
  local last = tonumber(string.sub(mark, 1, cut - 1))
  if last == number then return string.sub(mark, cut + 1) end
  if number ~= last + 1 then return redis.error_reply('ENQUEUE-GAP chunk ' .. number .. ' after ' .. last) end
end
for n, kind in pairs({[2] = 'zset', [3] = 'hash'}) do
  local is = call('TYPE', KEYS[n]).ok
  if is ~= kind and is ~= 'none' then error('SCHEDULE-TYPE ' .. KEYS[n] .. ' is a ' .. is) end
end
local last = #ARGV
if #KEYS > 4 then
  last = last - 1
  local refusal = beyond(KEYS[5], (last - 2) / 3)
  if refusal then return refusal end
end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local at, first = {}, nil
for i = 3, last, 3 do
  local is_span = string.sub(ARGV[i + 1], 1, 1) == '+'
  local ms = tonumber(is_span and string.sub(ARGV[i + 1], 2) or ARGV[i + 1])
  if not ms or ms < 0 or ms > 9007199254740991 or ms ~= math.floor(ms) then error('SCHEDULE-NUMBER ' .. ARGV[i + 1]) end
  at[i] = is_span and now + ms or ms
  if not first or at[i] < first then first = at[i] end
end
for i = 3, last, 3 do
  call('ZADD', KEYS[2], string.format('%.0f', at[i]), ARGV[i])
  call('HSET', KEYS[3], ARGV[i], ARGV[i + 2])
end
call('SET', KEYS[1], number .. '\n', 'PX', ARGV[2])
-- The promoter sleeps until what was first before this; it is told where that has changed.
local head = call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if tonumber(head[2]) >= first then
  redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', string.format('%.0f', first))
end
return ''
