-- Keep one lane: its place in the list, its low mark, its undelivered count, its history (rules 8, 30-33).
-- include: note
-- KEYS  1 lane · 2 low · 3 added · 4 settled · 5 lanes · 6 control · 7 restoring · 8 kept · 9 nearly full · 10 trimmed
-- ARGV  1 lane name · 2 oldest id that history keeps ("0" = keep all) · 3 most entries trimmed in one call · 4 now ms ·
--       5 most entries and · 6 most bytes of a lane whose pending entries hold history back · 7 ms for which Redis
--       counts as nearly full (0 = it is not) · 8 why history goes
-- Returns  {trimmed, low mark, the first entry above it: what the journal says of that and later ones is still needed}
-- Atomic because  the cut must lie below the oldest pending and the first undelivered entry at the moment of the trim.
-- Cost  O(trimmed) and O(copied): 100 bodies or 256 KB a call.
-- Without its group, or until all of a lost group is restored, nothing of a lane moves.
-- First write PERSIST, which changes nothing here, so that a full Redis is made room in (rules 3, 32).
local call = redis.call
call('PERSIST', KEYS[2])
if ARGV[7] ~= '0' then redis.pcall('SET', KEYS[9], '1', 'PX', ARGV[7]) end
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if not ms then return string.match(id, '^(%d+)$'), '0' end
  return ms, seq
end
local function less(a, b)
  local am, as = parts(a)
  local bm, bs = parts(b)
  if #am ~= #bm then return #am < #bm end
  if am ~= bm then return am < bm end
  if #as ~= #bs then return #as < #bs end
  return as < bs
end
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then return {0, '', ''} end
-- A lane that is not in the list has lost its place there: no new worker would ever read it.
if redis.pcall('HSETNX', KEYS[5], ARGV[1], ARGV[4]) == 1 then
  redis.pcall('XADD', KEYS[6], 'MAXLEN', '~', 1000, '*', 'e', 'lane', 'v', ARGV[1])
end
local before = call('HGET', KEYS[2], ARGV[1])
local function first_above(id)
  local found = redis.pcall('XRANGE', KEYS[1], '(' .. id, '+', 'COUNT', 1)
  return not found.err and found[1] and found[1][1] or ''
end
local last, pending
for i = 1, #groups do
  local g = {}
  for j = 1, #groups[i], 2 do g[groups[i][j]] = groups[i][j + 1] end
  if g['name'] == 'workers' then last, pending = g['last-delivered-id'], g['pending'] end
end
if not last or type(redis.pcall('HGET', KEYS[7], ARGV[1])) == 'string' then
  return {0, before or '', first_above(before or '0')}
end

-- Copy what a pending entry holds, so that its entry can go (rule 31); false where nobody could run it from the copy.
local function keep(place, entry)
  local found = call('XRANGE', KEYS[1], entry, entry)
  if #found == 0 then return 0 end  -- gone already
  local field = {a = '1,0,0,1,0'}
  for i = 1, #found[1][2], 2 do field[found[1][2][i]] = found[1][2][i + 1] end
  local is_ours, message = pcall(cmsgpack.unpack, field.d or '')
  local id = is_ours and type(message) == 'table' and message[2]
  if type(id) ~= 'string' or not string.find(id, '^%x+$') then return false end
  return type(redis.pcall('HSET', KEYS[8], place, id .. '\n' .. field.a .. '\n' .. field.d)) == 'number' and #field.d
end
-- A chunk that keeps Redis responsive, however large the bodies are (a megabyte takes 10 ms to look at).
local MOST_COPIED, MOST_BYTES = 100, 262144
local function first_that_holds_back(may_copy)
  local from, copied, bytes = '-', 0, 0
  while true do
    local rows = call('XPENDING', KEYS[1], 'workers', from, '+', 200)
    for i = 1, #rows do
      local entry = rows[i][1]
      local place = ARGV[1] .. '/' .. entry
      if redis.pcall('HEXISTS', KEYS[8], place) ~= 1 then
        if not may_copy or copied == MOST_COPIED or bytes >= MOST_BYTES or not less(entry, ARGV[2]) then return entry end
        local size = keep(place, entry)
        if not size then return entry end
        copied, bytes = copied + 1, bytes + size
      end
    end
    if #rows < 200 then return nil end
    from = '(' .. rows[#rows][1]
  end
end
local oldest = pending > 0 and call('XPENDING', KEYS[1], 'workers')[2]
if oldest then
  -- How much of this is younger than retention does not matter: the copy of a few bodies is all that it costs.
  local is_large = ARGV[2] ~= '0' and less(oldest, ARGV[2]) and (call('XLEN', KEYS[1]) > tonumber(ARGV[5])
    or (tonumber(redis.pcall('MEMORY', 'USAGE', KEYS[1])) or 0) > tonumber(ARGV[6]))
  if is_large or redis.pcall('HLEN', KEYS[8]) ~= 0 then oldest = first_that_holds_back(is_large) end
end
local low = last
if oldest then
  local ms, seq = parts(oldest)
  if seq ~= '0' then low = ms .. '-' .. string.format('%.0f', seq - 1)
  else low = string.format('%.0f', ms - 1) .. '-18446744073709551615' end
end
-- The mark never falls; the trim goes by what is true now, also where the mark is ahead of it.
local safe = low
if not before or less(before, low) then call('HSET', KEYS[2], ARGV[1], low) else low = before end
if #call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1) == 0 then
  local added = tonumber(call('HGET', KEYS[3], ARGV[1]) or '0')
  if added - tonumber(call('HGET', KEYS[4], ARGV[1]) or '0') ~= pending then
    call('HSET', KEYS[4], ARGV[1], string.format('%.0f', added - pending))
  end
end
local trimmed = 0
if ARGV[2] ~= '0' then
  -- MINID keeps the id it names, so cutting at `safe` itself keeps everything at and behind it.
  local cut = less(ARGV[2], safe) and ARGV[2] or safe
  trimmed = call('XTRIM', KEYS[1], 'MINID', '~', cut, 'LIMIT', ARGV[3])
  if trimmed > 0 then note(KEYS[10], KEYS[1], ARGV[1], cut, ARGV[4], ARGV[8]) end
end
return {trimmed, low, first_above(low)}
