-- Send the task message of one occurrence of a schedule, or pass over it (rule 27).
-- KEYS  1 schedules · 2 schedules:marks · 3 due · 4 due:body · 5 control · 6 cancelled · 7 flow · 8 unique
-- ARGV  1 schedule · 2 its record's SHA-1 · 3 the occurrence in ms, "" = by hand, beside the plan · 4 task id, "" = pass
--       over all occurrences up to this one · 5 record for due · 6 limits, "" = none · 7 overlap: queue, skip or
--       cancel-running · 8 name under which its messages are unique
-- Returns  "fired" · "passed" · "running" (passed over, since the message before has not ended) · "not now" (decided
--          already, not yet come, or paused) · "changed" (it is another one now, or gone)
-- Atomic because  the watermark and the message must appear together, or an occurrence happens twice, or never.
-- Cost  O(log due). The first write is a ZADD, which maxmemory refuses whole (rule 3): the occurrence then waits for room.
-- The watermark has no TTL: it is the instant of the last occurrence that was decided, fired or passed over, and "p" behind
-- it says that the schedule is paused. Time is the server's: never early.
local call, name = redis.call, ARGV[1]
local record = call('HGET', KEYS[1], name)
if not record or redis.sha1hex(record) ~= ARGV[2] then return 'changed' end
local mark, state = string.match(call('HGET', KEYS[2], name) or '', '^(%d+) ([p-])$')
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local at, by_hand = tonumber(ARGV[3]), ARGV[3] == ''
if not by_hand and (not mark or state == 'p' or at <= tonumber(mark) or at > now) then return 'not now' end
for key, kind in pairs({[3] = 'zset', [4] = 'hash', [5] = 'stream', [6] = 'hash', [7] = 'hash', [8] = 'hash'}) do
  local is = call('TYPE', KEYS[key]).ok
  if is ~= kind and is ~= 'none' then error('FIRE-TYPE ' .. KEYS[key] .. ' is a ' .. is) end
end
local function advance()
  if not by_hand then call('HSET', KEYS[2], name, ARGV[3] .. ' -') end
end
if ARGV[4] == '' then
  advance()
  return 'passed'
end
local before = ARGV[7] ~= 'queue' and string.match(call('HGET', KEYS[8], ARGV[8]) or '', '^(%x+) ')
if before and call('HEXISTS', KEYS[7], before) == 0 then before = nil end
if before and ARGV[7] == 'skip' then
  advance()
  return 'running'
end
call('ZADD', KEYS[3], by_hand and now or ARGV[3], ARGV[4])
call('HSET', KEYS[4], ARGV[4], ARGV[5])
if ARGV[6] ~= '' then call('HSET', KEYS[7], ARGV[4], '\n' .. ARGV[6]) end
if ARGV[7] ~= 'queue' then call('HSET', KEYS[8], ARGV[8], ARGV[4] .. ' 0') end
advance()
if before then
  call('HSET', KEYS[6], before, ARGV[4] .. ' terminate')
  for _, event in ipairs({'cancel', 'terminate'}) do
    redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'e', event, 'v', before)
  end
end
redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', string.format('%.0f', now))
return 'fired'
