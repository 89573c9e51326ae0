-- Settle many deliveries of one queue, each at most once (rules 20-23).
-- include: flow+room+lines
-- include: finish
-- KEYS  1 settled · 2 counts · 3 journal · 4 due · 5 due:body · 6 dead · 7 dead:body · 8 moved · 9 suspects · 10 cancelled ·
--       11 control · 12 settle mark · then the lanes in use · the reply streams in use · one result key per item ·
--       one bell per lane · added · flow · permits · parked · parked:body · ring · rates · starts · wake · flow:state ·
--       unique · paused · kept · nearly full
-- ARGV  1 consumer · 2 lanes · 3 reply streams · 4 length of a result key before the id · 5 settle mark's life ms ·
--       lane names · then per item:
--       op and flags · lane's position · entry · delivery count · journal record, and after that by op:
--         S K C E (success, skip, cancel, expiry): result record · keep ms · reply's position or 0
--         D (dead):  result record · keep ms · reply's position or 0 · died-at ms · dead letter
--         R (retry): run-at ms · body for due
--       flags behind the op: m = it was promoted once · s = it is a suspect · ! = check the message too (rule 22)
-- Returns  "" or "position:lost" joined by ",": what was not committed because another owner holds it ·
--          error SETTLE-… (nothing was written)
-- Atomic because  the gate, the outcome and the next state must appear together, or a second owner commits too.
-- Cost  O(items), 11 us each, 4 of them in the commands (17 with a table per item and numbers passed on as numbers, which
-- Redis prints anew for each call): so each number is checked once, and its text goes on as it came.
-- First write XACK, so it works at maxmemory (rule 3). The first pass only reads and converts (rule 21).
local KEYS, ARGV, call, find, sub = KEYS, ARGV, redis.call, string.find, string.sub
local base = #KEYS - 14
local k = {
  due = KEYS[4], due_body = KEYS[5], moved = KEYS[8], suspects = KEYS[9], cancelled = KEYS[10], control = KEYS[11],
  added = KEYS[base + 1], flow = KEYS[base + 2], permits = KEYS[base + 3], parked = KEYS[base + 4],
  parked_body = KEYS[base + 5], turns = KEYS[base + 6], rates = KEYS[base + 7], starts = KEYS[base + 8],
  wake = KEYS[base + 9], flow_state = KEYS[base + 10], unique = KEYS[base + 11], paused = KEYS[base + 12],
  kept = KEYS[base + 13],
}
local consumer, lanes, replies, cut = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local SIZE = {S = 8, K = 8, C = 8, E = 8, D = 10, R = 7}
local STATE = {S = 'succeeded', K = 'skipped', C = 'cancelled', E = 'expired', D = 'dead', R = 'retried'}
-- Larger whole numbers lose digits, and to Lua "inf" is a number.
local MOST = 9007199254740991
local LAST_ID = '18446744073709551615'

local function must_be(key, kind)
  local is = call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then error('SETTLE-TYPE ' .. key .. ' is a ' .. is) end
end
local checked = {}
local function number(text, least, most)
  local n = checked[text]
  if not n then
    n = tonumber(text or '')
    -- As Redis itself writes numbers: it takes neither "1e3" nor "007" for one, and the text is what goes on.
    if not n or n > MOST or not (text == '0' or find(text, '^[1-9]%d*$')) then error('SETTLE-NUMBER ' .. tostring(text)) end
    checked[text] = n
  end
  if n < least or n > most then error('SETTLE-NUMBER ' .. text) end
  return n
end
local function must_be_entry(text)
  if #text <= 20 and find(text, '^%d+%-%d+$') then return end
  local ms, seq = string.match(text, '^(%d+)%-(%d+)$')
  if not ms or #ms > 20 or #seq > 20 or (#ms == 20 and ms > LAST_ID) or (#seq == 20 and seq > LAST_ID) then
    error('SETTLE-ENTRY ' .. text)
  end
end

must_be(KEYS[1], 'hash') must_be(KEYS[3], 'stream')
for i = 1, lanes do must_be(KEYS[12 + i], 'stream') end
local life = number(ARGV[5], 1, MOST)
-- Of each item: where it begins, its operation, its flags or false, its lane.
local starts, ops, flags_of, lane_of, total = {}, {}, {}, {}, 0
local at, last, uses = 6 + lanes, #ARGV, {}
while at <= last do
  local word = ARGV[at]
  local op = #word == 1 and word or sub(word, 1, 1)
  local size = SIZE[op]
  if not size then error('SETTLE-OP ' .. word) end
  if at + size - 1 > last then error('SETTLE-ARGS the last item is cut short') end
  total = total + 1
  starts[total], ops[total], flags_of[total], lane_of[total] = at, op, #word > 1 and word, number(ARGV[at + 1], 1, lanes)
  number(ARGV[at + 3], 0, MOST)
  must_be_entry(ARGV[at + 2])
  if op == 'R' then
    number(ARGV[at + 5], 0, MOST)
  else
    number(ARGV[at + 6], 0, MOST)
    number(ARGV[at + 7], 0, replies)
    if op == 'D' then number(ARGV[at + 8], 0, MOST) end
  end
  uses[op] = true
  if #word > 1 then uses.flags = true end
  at = at + size
end
if #KEYS ~= 26 + 2 * lanes + replies + total then error('SETTLE-ARGS ' .. #KEYS .. ' keys for ' .. total .. ' items') end
if uses.R then must_be(KEYS[4], 'zset') must_be(KEYS[5], 'hash') end
if uses.D then must_be(KEYS[6], 'zset') must_be(KEYS[7], 'hash') end
if uses.flags then must_be(k.moved, 'hash') end
-- A suspicion may have come after the read, and so may a cancel; each is freed by whoever ends the message.
local has_marks, has_suspects = call('HLEN', k.cancelled) > 0, call('HLEN', k.suspects) > 0
local has_kept = redis.pcall('HLEN', k.kept)
has_kept = type(has_kept) == 'number' and has_kept > 0
-- An end counts whatever stands where limits are kept; what it does not free then, the sweep does.
local has_limits = redis.pcall('HLEN', k.flow)
if type(has_limits) == 'number' and has_limits > 0 then flow = open_flow() end
k.has_flow = flow and not flow.foreign(k)
if k.has_flow then
  k.streams, k.bells, k.ending, k.retrying = {}, {}, {}, {}
  for i = 1, lanes do
    k.streams[ARGV[5 + i]], k.bells[ARGV[5 + i]] = KEYS[12 + i], KEYS[12 + lanes + replies + total + i]
  end
end
-- Of a large result only the end is told while Redis is nearly full (rule 32); 193 begins no value.
local is_nearly_full = call('EXISTS', KEYS[#KEYS]) == 1
local function recorded(op, record)
  if not is_nearly_full or op ~= 'S' or #record <= 1024 then return record end
  return (string.match(record, '^[^\n]*\n[^\n]*\n') or '') .. '\193dropped: memory'
end

local function is_owner(stream, entry, count)
  local p = redis.pcall('XPENDING', stream, 'workers', entry, entry, 1, consumer)
  return not p.err and #p == 1 and p[1][4] == count
end
local function holds(stream, entry, id, place)
  local found = call('XRANGE', stream, entry, entry)
  if #found == 0 then
    local copy = redis.pcall('HGET', k.kept, place)
    return type(copy) == 'string' and string.sub(copy, 1, #id + 1) == id .. '\n'
  end
  for f = 1, #found[1][2], 2 do
    if found[1][2][f] == 'd' then return string.find(found[1][2][f + 1], id, 1, true) ~= nil end
  end
  return false
end
-- Its limits are freed with the end; who retries a dead letter asks for them anew. They are the tenth field of ten, which
-- comes empty.
local function with_limits(id, letter)
  local record = k.has_flow and call('HGET', k.flow, id)
  local cut = record and find(record, '\n', 1, true)
  local size = cut and #record - cut or 0
  if size == 0 or size > 65535 or sub(letter, 1, 1) ~= '\154' or sub(letter, -2) ~= '\196\0' then return letter end
  return sub(letter, 1, -3) .. '\197' .. string.char(math.floor(size / 256), size % 256) .. sub(record, cut + 1)
end
local function first_line(text)
  return type(text) == 'string' and string.sub(text, 1, (string.find(text, '\n', 1, true) or 1) - 1)
end
-- What tells one chunk of a consumer from all others: its records hold the entries and the instants, and two deliveries
-- of one entry may end at the same instant.
local function record_of(n) return '\n' .. ARGV[starts[n] + 3] .. '\n' .. ARGV[starts[n] + 4] end
local chunk = total == 0 and '' or redis.sha1hex(total .. record_of(1) .. record_of(total))
local answer_before
local function was_committed(n)
  if answer_before == nil then
    local mark = redis.pcall('GET', KEYS[12])
    answer_before = first_line(mark) == chunk and ',' .. string.sub(mark, #chunk + 2) .. ','
  end
  return answer_before and not string.find(answer_before, ',' .. n .. ':lost,', 1, true)
end

local lost, tally, settled, retried = {}, {}, {}, {}
for n = 1, total do
  local a, op, flags, lane = starts[n], ops[n], flags_of[n], lane_of[n]
  local stream, entry, result = KEYS[12 + lane], ARGV[a + 2], KEYS[12 + lanes + replies + n]
  local careful = flags and find(flags, '!', 1, true)
  local mine = true
  if op == 'R' or op == 'D' or careful then mine = is_owner(stream, entry, checked[ARGV[a + 3]]) end
  if mine and careful then mine = holds(stream, entry, sub(result, cut + 1), ARGV[5 + lane] .. '/' .. entry) end
  if mine and call('XACK', stream, 'workers', entry) == 1 then
    settled[lane] = (settled[lane] or 0) + 1
    tally[op] = (tally[op] or 0) + 1
    local place = (has_suspects or has_kept) and (ARGV[5 + lane] .. '/' .. entry)
    local was_moved = flags and find(flags, 'm', 1, true)
    if op == 'R' then
      local id, run_at = sub(result, cut + 1), ARGV[a + 5]
      -- What was cancelled meanwhile does not wait for its time: whoever gets it next drops it.
      if has_marks and call('HEXISTS', k.cancelled, id) == 1 then run_at = '0' end
      call('ZADD', KEYS[4], run_at, id)
      call('HSET', KEYS[5], id, ARGV[a + 6])
      retried[id] = run_at
      finish(k, id, place, was_moved, has_suspects, false, has_kept, true)
    else
      local record, keep, reply = recorded(op, ARGV[a + 5]), ARGV[a + 6], checked[ARGV[a + 7]]
      if keep ~= '0' then call('SET', result, record, 'PX', keep) end
      if op == 'D' then
        local id = sub(result, cut + 1)
        call('ZADD', KEYS[6], ARGV[a + 8], id)
        call('HSET', KEYS[7], id, with_limits(id, ARGV[a + 9]))
      end
      if reply > 0 then
        -- Small results ride along, which saves the waiter a round trip; 4 KB because a reply stream holds 10,000.
        local id, value = sub(result, cut + 1), #record <= 4096 and record or ''
        redis.pcall('XADD', KEYS[12 + lanes + reply], 'NOMKSTREAM', 'MAXLEN', '~', 10000, '*', 'i', id, 'v', value)
      end
      if was_moved or has_suspects or has_marks or has_kept or k.has_flow then
        finish(k, sub(result, cut + 1), place, was_moved, has_suspects, has_marks, has_kept)
      end
    end
    call('XADD', KEYS[3], '*', 'j', ARGV[a + 4])
  else
    -- A resend after a lost reply finds its own token, or its own chunk, and was committed (rule 23).
    local same = op ~= 'R' and first_line(redis.pcall('GET', result)) == first_line(ARGV[a + 5])
    if not same and not was_committed(n) then lost[#lost + 1] = n .. ':lost' end
  end
end
if k.has_flow then
  if #k.ending > 0 then flow.free(k, k.ending, false) end
  if #k.retrying > 0 then flow.free(k, k.retrying, true) end
  flow.flush(k)
end
local answer = table.concat(lost, ',')
-- What is settled stays so, whatever stands in the counters; the maintainer re-checks them (rule 33).
for lane, n in pairs(settled) do redis.pcall('HINCRBY', KEYS[1], ARGV[5 + lane], n) end
for op, n in pairs(tally) do redis.pcall('HINCRBY', KEYS[2], STATE[op], n) end
if next(tally) then call('SET', KEYS[12], chunk .. '\n' .. answer, 'PX', life) end
if next(retried) then
  local head = call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
  local at = retried[head[1]]
  -- What stands before them and is overdue was put there without a word: the promoter sleeps, and would on.
  if not at and tonumber(head[2]) < call('TIME')[1] * 1000 then at = head[2] end
  if at then redis.pcall('XADD', KEYS[11], 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', at) end
end
return answer
