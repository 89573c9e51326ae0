-- Limits of how many run, in which order and how fast: who has which permit (rule 28). It goes on in room.lua and lines.lua.
-- KEYS  none of its own: the including script passes a table `k` with flow, permits, parked, parked_body, ring, rates,
--       starts, wake, flow_state, unique, paused, due, due_body, moved, added and control; `streams` and `bells` by lane where it
--       may put a message there itself.
-- ARGV  none of its own.
-- Returns  nothing: it defines `flow`. A script that changed anything through it calls flow.flush(k) before it returns.
-- Atomic because  the including script is: a permit, the record that has it and the place of the message change together.
-- Cost  O(1) per limit of a message. What one script call has read it reads once, and most of what it writes goes in one
-- command per key at its end: commands of their own for each, and sorted sets, cost Redis five times as much.
-- Permits are fields of a hash, <limit> NUL <id>: what is there twice counts once, and who ends frees only its own. How many
-- a limit has is kept beside them (+<limit> in flow:state, and -<line> for who waits) and changes only where a field came or
-- went; the sweep compares the two (sweep.lua).
-- A limit is {kind, name, …}: c = that many at once (n) · k = one at a time in order · g = a fair group (weight, n) ·
-- t = a bucket of tokens (us per token, burst) · w = so many in any span (n, us). The numbers are those of the message
-- that asks. u = unique, kept until it ends. All keys that this touches are sorted sets and hashes of ours.
local flow = {}
local NUL, SOH, WINDOW, NONE = '\0', '\1', '*', {}
-- What this call of the script knows; nobody else writes meanwhile. How many have a permit and how many wait by limit, what
-- of that Redis has, limits by their packed text, {tokens, when} by rate, starts in a window, whether a group is paused.
local held, waits, had, waited, unpacked, buckets, started, paused = {}, {}, {}, {}, {}, {}, {}, {}
-- What flow.flush writes: places by id; owners of names; permits that came or went; fields of `rates`; members of `starts`; rates to look at
-- again; for how long `rates` and `starts` mean anything, ms.
local places, owners, taken, gone, begun, remembered, relook, lives = {}, {}, {}, {}, {}, {}, {}, {}

local clock
function flow.now()
  if not clock then
    local t = redis.call('TIME')
    clock = t[1] * 1000000 + t[2]
  end
  return clock
end

local ZSETS = {'parked', 'ring', 'starts', 'wake', 'due'}
local HASHES = {'flow', 'permits', 'parked_body', 'rates', 'flow_state', 'unique', 'due_body', 'moved'}
-- A key among those below under which something else stands, nil = none: asked before the first write (rule 21).
function flow.foreign(k)
  for kind, names in pairs({zset = ZSETS, hash = HASHES}) do
    for i = 1, #names do
      local key = k[names[i]]
      local is = redis.call('TYPE', key).ok
      if is ~= kind and is ~= 'none' then return key .. ' is a ' .. is end
    end
  end
end

-- One command for many arguments, of which Lua's stack holds about 8,000; answers the sum of what it answers.
local function many(command, key, list)
  local sum = 0
  for i = 1, #list, 4000 do sum = sum + redis.call(command, key, unpack(list, i, math.min(i + 3999, #list))) end
  return sum
end

-- Redis keeps a small hash or sorted set as a list, which it searches from end to end, until something longer than 64 bytes
-- has been in it: with 100 permits that made each one as dear as all the rest of its message.
local LONG = string.rep('.', 65)
local function spread(command, key, list)
  if #list == 0 then return end
  local is_new = redis.call('EXISTS', key) == 0
  if is_new and command == 'HSET' then redis.call('HSET', key, LONG, LONG) end
  if is_new and command == 'ZADD' then redis.call('ZADD', key, '0', LONG) end
  many(command, key, list)
  if is_new then redis.call(command == 'HSET' and 'HDEL' or 'ZREM', key, LONG) end
end

function flow.unpacked(packed)
  local limits = unpacked[packed]
  if not limits then
    local fine, found = pcall(cmsgpack.unpack, packed)
    limits = fine and type(found) == 'table' and found or {}
    unpacked[packed] = limits
  end
  return limits
end

-- The limits of messages, each {limits, packed, where it is}, false where it has none. A record is its place, a line of
-- its own, and the packed limits.
function flow.records(k, ids)
  local found, records = redis.call('HMGET', k.flow, unpack(ids)), {}
  for i = 1, #ids do
    local record = found[i]
    local cut = record and string.find(record, '\n', 1, true)
    local packed = cut and string.sub(record, cut + 1)
    records[i] = packed and {flow.unpacked(packed), packed, string.sub(record, 1, cut - 1)}
  end
  return records
end

-- Note where an admitted message is, so that who looks after the permits finds it.
function flow.placed(id, packed, where) places[id] = where .. '\n' .. packed end
-- Whether a message with limits has not ended.
function flow.is_known(k, id) return places[id] ~= nil or redis.call('HEXISTS', k.flow, id) == 1 end

local function range(name) return '[' .. name .. NUL, '(' .. name .. SOH end

-- Read together how many have, and wait for, the limits of these messages.
function flow.foresee(k, records)
  local names, fields = {}, {}
  local function ask(name)
    if held[name] then return end
    held[name], waits[name] = 0, 0
    names[#names + 1] = name
    fields[#fields + 1], fields[#fields + 2] = '+' .. name, '-' .. name
  end
  for n = 1, #records do
    local limits = records[n] and records[n][1] or NONE
    for i = 1, #limits do
      if limits[i][1] ~= 'u' then ask(limits[i][2]) end
      if limits[i][1] == 'g' then ask(WINDOW) end
    end
  end
  for i = 1, #fields, 4000 do
    local found = redis.call('HMGET', k.flow_state, unpack(fields, i, math.min(i + 3999, #fields)))
    for j = 1, #found, 2 do
      local name = names[(i + j) / 2]
      held[name], waits[name] = tonumber(found[j] or 0) or 0, tonumber(found[j + 1] or 0) or 0
      had[name], waited[name] = held[name], waits[name]
    end
  end
end
local function count(k, name)
  local n = held[name]
  if n then return n end
  local found = redis.call('HMGET', k.flow_state, '+' .. name, '-' .. name)
  held[name], waits[name] = tonumber(found[1] or 0) or 0, tonumber(found[2] or 0) or 0
  had[name], waited[name] = held[name], waits[name]
  return held[name]
end
function flow.waiting(k, name)
  if not held[name] then count(k, name) end
  return waits[name]
end
local function recount(k, name, has, wait)
  held[name], waits[name] = math.max(0, count(k, name) + has), math.max(0, waits[name] + wait)
end
flow.recount = recount

-- Which permits messages have, by position or id, and by name; records as flow.records gives them.
function flow.permits(k, ids, records)
  local fields, whose, names, has = {}, {}, {}, {}
  for n = 1, #ids do
    has[n] = has[ids[n]] or {}
    local limits = not has[ids[n]] and records[n] and records[n][1] or NONE
    has[ids[n]] = has[n]
    for i = 1, #limits do
      local kind, name = limits[i][1], limits[i][2]
      if kind ~= 'u' then
        fields[#fields + 1], whose[#whose + 1], names[#names + 1] = name .. NUL .. ids[n], n, name
      end
      if kind == 'g' then fields[#fields + 1], whose[#whose + 1], names[#names + 1] = WINDOW .. NUL .. ids[n], n, WINDOW end
    end
  end
  for i = 1, #fields, 4000 do
    local found = redis.call('HMGET', k.permits, unpack(fields, i, math.min(i + 3999, #fields)))
    for j = 1, #found do
      if found[j] then has[whose[i + j - 1]][names[i + j - 1]] = true end
    end
  end
  return has
end
local function take(k, name, id, has)
  if has[name] then return end
  taken[#taken + 1], taken[#taken + 2] = name .. NUL .. id, ''
  has[name] = true
  recount(k, name, 1, 0)
end
-- Give a permit back; false where there was none.
function flow.give_back(k, name, id, has)
  if not has[name] then return false end
  gone[#gone + 1] = name .. NUL .. id
  has[name] = nil
  recount(k, name, -1, 0)
  return true
end

-- Take every permit a message asks for, or none; answers the limit that lacks room, or nothing. `has` are those that it
-- has already, which it does not ask for. `from` is the line that it comes from: elsewhere those that wait already go first.
function flow.admit(k, id, limits, now, has, from)
  for i = 1, #limits do
    local limit = limits[i]
    local name = limit[2]
    if limit[1] ~= 'u' and not has[name] then
      if name ~= from and flow.waiting(k, name) > 0 then return limit end
      if not flow.room(k, limit, now) then return limit end
    end
  end
  for i = 1, #limits do
    local kind, name = limits[i][1], limits[i][2]
    if kind ~= 'u' then take(k, name, id, has) end
    if kind == 'g' then take(k, WINDOW, id, has) end
  end
end

-- Who has a name that is unique, and until when, ms; 0 = until it ends.
function flow.owner(k, name) return owners[name] or redis.call('HGET', k.unique, name) end
function flow.own(name, id, till) owners[name] = id .. ' ' .. string.format('%.0f', till) end
local function is_owner(owner, id) return owner and owner == id .. ' 0' end

-- Free the names that are unique until these messages end, {name, id} each.
local function free_unique(k, owned)
  local names, gone = {}, {}
  for i = 1, #owned do names[i] = owned[i][1] end
  for i = 1, #names, 4000 do
    local owners = redis.call('HMGET', k.unique, unpack(names, i, math.min(i + 3999, #names)))
    for j = 1, #owners do
      if is_owner(owners[j], owned[i + j - 1][2]) then gone[#gone + 1] = names[i + j - 1] end
    end
  end
  many('HDEL', k.unique, gone)
end

-- Let a key live at least so long from now on: what is in it means nothing once its span is over.
local function expire_after(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(ms) + 1000)) end
end

local function pairs_of(map)
  local list = {}
  for field, value in pairs(map) do list[#list + 1], list[#list + 2] = field, value end
  return list
end

-- Write what has gathered.
function flow.flush(k)
  flow.flush_lines(k)
  spread('HSET', k.flow, pairs_of(places))
  -- A permit may go and come again in one call, never the other way round.
  many('HDEL', k.permits, gone)
  spread('HSET', k.permits, taken)
  many('HSET', k.rates, pairs_of(begun))
  many('ZADD', k.starts, remembered)
  local numbers, zeros = {}, {}
  local function write(field, n)
    if n == 0 then
      zeros[#zeros + 1] = field
    else
      numbers[#numbers + 1], numbers[#numbers + 2] = field, n
    end
  end
  for name, n in pairs(held) do
    if n ~= had[name] then write('+' .. name, n) end
    if waits[name] ~= waited[name] then write('-' .. name, waits[name]) end
    had[name], waited[name] = n, waits[name]
  end
  spread('HSET', k.flow_state, numbers)
  many('HDEL', k.flow_state, zeros)
  spread('HSET', k.unique, pairs_of(owners))
  places, owners, taken, gone, begun, remembered = {}, {}, {}, {}, {}, {}
  if lives.rates then expire_after(k.rates, lives.rates) end
  if lives.starts then expire_after(k.starts, lives.starts) end
  for name, limit in pairs(relook) do
    if flow.waiting(k, name) > 0 then flow.wake_later(k, limit, flow.now()) end
  end
  relook, lives = {}, {}
end
