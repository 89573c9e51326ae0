-- Keep one lane: its place in the list, its low mark, its undelivered count, its history (rules 8, 30, 33).
-- KEYS  1 lane · 2 low · 3 added · 4 settled · 5 lanes · 6 control · 7 restoring
-- ARGV  1 lane name · 2 oldest id that history keeps ("0" = keep all) · 3 most entries trimmed in one call · 4 now ms
-- Returns  {trimmed, low mark, the first entry above it: what the journal says of that and later ones is still needed}
-- Atomic because  the cut must lie below the oldest pending and the first undelivered entry at the moment of the trim.
-- Without its group, or until all of a lost group is restored, nothing of a lane moves.
local call = redis.call
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
local low = last
if pending > 0 then
  local ms, seq = parts(call('XPENDING', KEYS[1], 'workers')[2])
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
end
return {trimmed, low, first_above(low)}
