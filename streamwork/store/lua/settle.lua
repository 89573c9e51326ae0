-- Settle many deliveries of one queue, each at most once (rules 20-23).
-- include: finish
-- KEYS  1 settled · 2 counts · 3 journal · 4 due · 5 due:body · 6 dead · 7 dead:body · 8 moved · 9 suspects · 10 cancelled ·
--       11 control · then the lanes in use · the reply streams in use · one result key per item
-- ARGV  1 consumer · 2 lanes · 3 reply streams · 4 length of a result key before the id · lane names · then per item:
--       op and flags · lane's position · entry · delivery count · journal record, and after that by op:
--         S K C (success, skip, cancel): result record · keep ms · reply's position or 0
--         D (dead):  result record · keep ms · reply's position or 0 · died-at ms · dead letter
--         R (retry): run-at ms · body for due
--       flags behind the op: m = it was promoted once · s = it is a suspect · ! = check the message too (rule 22)
-- Returns  "" or "position:lost" joined by ",": what was not committed because another owner holds it
-- Atomic because  the gate, the outcome and the next state must appear together, or a second owner commits too.
-- Cost  O(items). First write XACK, so it works at maxmemory (rule 3). The first pass only reads and converts (rule 21).
local call = redis.call
local k = {moved = KEYS[8], suspects = KEYS[9], cancelled = KEYS[10]}
local consumer, lanes, replies, cut = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local SIZE = {S = 8, K = 8, C = 8, D = 10, R = 7}
local STATE = {S = 'succeeded', K = 'skipped', C = 'cancelled', D = 'dead', R = 'retried'}

local function must_be(key, kind)
  local is = call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then error('SETTLE-TYPE ' .. key .. ' is a ' .. is) end
end
local function number(text, least)
  local n = tonumber(text)
  if not n or n < least or n ~= math.floor(n) then error('SETTLE-NUMBER ' .. tostring(text)) end
  return n
end

must_be(KEYS[1], 'hash') must_be(KEYS[2], 'hash') must_be(KEYS[3], 'stream')
for i = 1, lanes do must_be(KEYS[11 + i], 'stream') end
local items, at, has_due, has_dead = {}, 5 + lanes, false, false
while at <= #ARGV do
  local op = string.sub(ARGV[at], 1, 1)
  if not SIZE[op] then error('SETTLE-OP ' .. ARGV[at]) end
  local item = {at = at, op = op, flags = #ARGV[at] > 1 and ARGV[at] or nil, lane = number(ARGV[at + 1], 1)}
  if op == 'R' then
    has_due = true
    number(ARGV[at + 5], 0)
  else
    number(ARGV[at + 6], 0)
    item.reply = number(ARGV[at + 7], 0)
    if op == 'D' then has_dead = true number(ARGV[at + 8], 0) end
  end
  items[#items + 1] = item
  at = at + SIZE[op]
end
if has_due then must_be(KEYS[4], 'zset') must_be(KEYS[5], 'hash') end
if has_dead then must_be(KEYS[6], 'zset') must_be(KEYS[7], 'hash') end
local has_marks = call('HLEN', k.cancelled) > 0

local function is_owner(stream, entry, count)
  local p = call('XPENDING', stream, 'workers', entry, entry, 1, consumer)
  return #p == 1 and p[1][4] == tonumber(count)
end
local function holds(stream, entry, id)
  local found = call('XRANGE', stream, entry, entry)
  if #found == 0 then return false end
  for f = 1, #found[1][2], 2 do
    if found[1][2][f] == 'd' then return string.find(found[1][2][f + 1], id, 1, true) ~= nil end
  end
  return false
end
local function first_line(text)
  return text and string.sub(text, 1, (string.find(text, '\n', 1, true) or 1) - 1)
end

local lost, tally, settled, retried = {}, {}, {}, {}
for n = 1, #items do
  local item = items[n]
  local a, op, flags = item.at, item.op, item.flags
  local stream, entry, result = KEYS[11 + item.lane], ARGV[a + 2], KEYS[11 + lanes + replies + n]
  local id = string.sub(result, cut + 1)
  local careful = flags and string.find(flags, '!', 1, true)
  local mine = true
  if op == 'R' or op == 'D' or careful then mine = is_owner(stream, entry, ARGV[a + 3]) end
  if mine and careful then mine = holds(stream, entry, id) end
  if mine and call('XACK', stream, 'workers', entry) == 1 then
    settled[item.lane] = (settled[item.lane] or 0) + 1
    tally[op] = (tally[op] or 0) + 1
    local place = flags and (ARGV[4 + item.lane] .. '/' .. entry)
    local was_moved, suspect = flags and string.find(flags, 'm', 1, true), flags and string.find(flags, 's', 1, true)
    if op == 'R' then
      call('ZADD', KEYS[4], ARGV[a + 5], id)
      call('HSET', KEYS[5], id, ARGV[a + 6])
      retried[id] = ARGV[a + 5]
      finish(k, id, place, was_moved, suspect, false)
    else
      local keep = tonumber(ARGV[a + 6])
      if keep > 0 then call('SET', result, ARGV[a + 5], 'PX', keep) end
      if op == 'D' then
        call('ZADD', KEYS[6], ARGV[a + 8], id)
        call('HSET', KEYS[7], id, ARGV[a + 9])
      end
      if item.reply > 0 then
        -- Small results ride along, which saves the waiter a round trip; 4 KB because a reply stream holds 10,000.
        local value = #ARGV[a + 5] <= 4096 and ARGV[a + 5] or ''
        redis.pcall('XADD', KEYS[11 + lanes + item.reply], 'NOMKSTREAM', 'MAXLEN', '~', 10000, '*', 'i', id, 'v', value)
      end
      if flags or has_marks then finish(k, id, place, was_moved, suspect, has_marks) end
    end
    call('XADD', KEYS[3], '*', 'j', ARGV[a + 4])
  else
    -- A resend after a lost reply finds its own token, or its own retry, and was committed (rule 23).
    local same
    if op == 'R' then same = call('HGET', KEYS[5], id) == ARGV[a + 6]
    else same = first_line(call('GET', result)) == first_line(ARGV[a + 5]) end
    if not same then lost[#lost + 1] = n .. ':lost' end
  end
end
for lane, n in pairs(settled) do call('HINCRBY', KEYS[1], ARGV[4 + lane], n) end
for op, n in pairs(tally) do call('HINCRBY', KEYS[2], STATE[op], n) end
if next(retried) then
  local head = call('ZRANGE', KEYS[4], 0, 0)[1]
  if retried[head] then call('XADD', KEYS[11], 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', retried[head]) end
end
return table.concat(lost, ',')
