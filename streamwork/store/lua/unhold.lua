-- Let task messages that waited for a paused task go on, where that is paused no longer.
-- KEYS  1 due · 2 paused · 3 control
-- ARGV  1 first score that stands for a task · 2 most messages
-- Returns  how many are due now
-- Atomic because  a task that is paused again meanwhile keeps what it has; a message is in due all the time (I1).
-- Cost  O(log due) per message and per paused task. First write ZREM, so that it works at maxmemory (rule 3).
-- A task's score is the first one + the first 12 hex digits of the SHA-1 of its name.
local call = redis.call
local first, most, paused = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
local function text(n) return string.format('%.0f', n) end
for _, field in ipairs(call('HKEYS', KEYS[2])) do
  if string.sub(field, 1, 5) == 'task:' then
    paused[text(first + tonumber(string.sub(redis.sha1hex(string.sub(field, 6)), 1, 12), 16))] = true
  end
end
local t = call('TIME')
local now = text(t[1] * 1000 + math.floor(t[2] / 1000))
local from, moved = text(first), 0
while moved < most do
  local head = call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if not head[1] then break end
  local score = text(tonumber(head[2]))
  if paused[score] then
    from = '(' .. score
  else
    local ids = call('ZRANGEBYSCORE', KEYS[1], score, score, 'LIMIT', 0, most - moved)
    for i = 1, #ids do
      if call('ZREM', KEYS[1], ids[i]) == 1 then call('ZADD', KEYS[1], now, ids[i]) end
    end
    moved = moved + #ids
  end
end
if moved > 0 then redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', now) end
return moved
