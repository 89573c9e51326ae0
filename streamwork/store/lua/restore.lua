-- Give the unsettled entries of a lane whose group was lost back for adoption, some at a time (rule 8).
-- KEYS  1 lane · 2 returned · 3 restoring · 4 control · 5 bell
-- ARGV  1 lane name · 2 the note as it was read · 3 the last entry to look at · 4 most entries · then what the journal
--       says was settled up to that entry
-- Returns  {the note now, "" = all is done, "changed" = the note is another one; entries given back}
-- Atomic because  the note must say how far this came, or what was settled since is given back a second time.
-- Cost  O(most). First write PERSIST, which changes nothing here, so it works at maxmemory (rule 3).
local call, pcall = redis.call, redis.pcall
local lane = ARGV[1]
call('PERSIST', KEYS[3])
if call('HGET', KEYS[3], lane) ~= ARGV[2] then return {'changed', 0} end
local mark, last, instant = string.match(ARGV[2], '^([%d-]+) ([%d-]+) (%d+)$')
local rows = mark and pcall('XRANGE', KEYS[1], '(' .. mark, ARGV[3], 'COUNT', ARGV[4])
if not rows or rows.err then
  call('HDEL', KEYS[3], lane)  -- not ours, or the lane is none any more
  return {'', 0}
end
local taken = {}
for i = 5, #ARGV do taken[ARGV[i]] = true end
if #rows > 0 then
  local pending = pcall('XPENDING', KEYS[1], 'workers', rows[1][1], rows[#rows][1], ARGV[4])
  if pending.err then return {'changed', 0} end  -- lost again: whoever heals it notes it anew
  for i = 1, #pending do taken[pending[i][1]] = true end
end
local claim = {'XCLAIM', KEYS[1], 'workers', 'returned', 0}
for i = 1, #rows do
  if not taken[rows[i][1]] then claim[#claim + 1] = rows[i][1] end
end
local back = #claim - 5
if back > 0 then
  for _, option in ipairs({'TIME', 1, 'RETRYCOUNT', instant, 'FORCE', 'JUSTID'}) do claim[#claim + 1] = option end
  call(unpack(claim))
  pcall('SADD', KEYS[2], lane)
  pcall('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'e', 'returned', 'v', lane)
  if pcall('LLEN', KEYS[5]) == 0 then pcall('RPUSH', KEYS[5], '1') end
end
local reached = #rows == tonumber(ARGV[4]) and rows[#rows][1] or ARGV[3]
if reached == last then
  call('HDEL', KEYS[3], lane)
  return {'', back}
end
local note = reached .. ' ' .. last .. ' ' .. instant
call('HSET', KEYS[3], lane, note)
return {note, back}
