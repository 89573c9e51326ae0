-- Limits of how many run, in which order and how fast: who has which permit (rule 28). It goes on in room.lua and lines.lua.
-- KEYS  none of its own: the including script passes a table `k` with flow, permits, parked, parked_body, turns, rates,
--       starts, wake, flow_state, unique, paused, due, due_body, moved, added and control; `streams` and `bells` by lane where it
--       may put a message there itself.
-- ARGV  none of its own.
-- Returns  nothing: it defines `flow`. A script that changed anything through it calls flow.flush(k) before it returns.
-- Atomic because  the including script is: a permit, the record that has it and the place of the message change together.
-- Cost  O(1) per limit of a message. What one script call has read it reads once, and most of what it writes goes in one
-- command per key at its end: commands of their own for each, and sorted sets, cost Redis five times as much.
-- Permits belong to the id: the record of a message says which of its limits it has, so who ends frees its own, once. How
-- many have a limit (+<limit> in permits) and wait for it (-<limit>) changes only with a record, in the same step; the sweep
-- compares the two (sweep.lua).
-- A record is a line with its place and the packed limits. Places: "" it has none, in due or in a line · "+" the same with its
-- turn in a strict order · "*" in due with all · lane/entry with all · lane/entry! with all but its rates, which it has spent.
-- A limit is {kind, name, …}: c = that many at once (n) · k = one at a time in order · g = a group (weight; n at once, 0 = no
-- limit of its own) · v = the window of all groups with these tags · t = a bucket of tokens (us per token, burst) · w = so many
-- in any span (n, us). The numbers are those of the message that asks. u = unique, kept until it ends. All keys that this
-- touches are sorted sets and hashes of ours.
local flow = {}
local NUL, SOH, NONE = '\0', '\1', {}
-- What this call of the script knows; nobody else writes meanwhile. How many have a permit and how many wait by limit, what
-- of that Redis has, limits by their packed text, {tokens, when} by rate, starts in a window, whether a group is paused.
local held, waits, had, waited, unpacked, buckets, started, paused = {}, {}, {}, {}, {}, {}, {}, {}
-- What flow.flush writes: places by id; owners of names; rates that were spent; members of `starts`; rates to look
-- at again.
local places, owners, begun, remembered, relook = {}, {}, {}, {}, {}

local clock
function flow.now()
  if not clock then
    local t = redis.call('TIME')
    clock = t[1] * 1000000 + t[2]
  end
  return clock
end

local ZSETS = {'parked', 'starts', 'wake', 'due'}
local HASHES = {'flow', 'permits', 'parked_body', 'turns', 'rates', 'flow_state', 'unique', 'due_body', 'moved'}
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

local NUMBERS = {c = 1, k = 0, g = 2, v = 0, t = 2, w = 2, u = 0}
-- What somebody else wrote there must not raise behind the first write (rule 21).
local function are_limits(found)
  if type(found) ~= 'table' then return false end
  for i = 1, #found do
    local limit = found[i]
    local numbers = type(limit) == 'table' and type(limit[2]) == 'string' and NUMBERS[limit[1]]
    if not numbers then return false end
    for j = 3, 2 + numbers do if type(limit[j]) ~= 'number' then return false end end
    if limit[1] == 'u' and type(limit[4]) ~= 'number' then return false end
  end
  return true
end
function flow.unpacked(packed)
  local limits = unpacked[packed]
  if not limits then
    local fine, found = pcall(cmsgpack.unpack, packed)
    limits = fine and are_limits(found) and found or {}
    unpacked[packed] = limits
  end
  return limits
end

-- What is kept of messages, each {limits, packed, place}; false where they have no limits, or have ended.
function flow.records(k, ids)
  local found, records, by_id = redis.call('HMGET', k.flow, unpack(ids)), {}, {}
  for i = 1, #ids do
    local id, record = ids[i], places[ids[i]] or found[i]
    local cut = record and string.find(record, '\n', 1, true)
    if cut and not by_id[id] then
      local packed = string.sub(record, cut + 1)
      by_id[id] = {flow.unpacked(packed), packed, string.sub(record, 1, cut - 1)}
    end
    records[i] = by_id[id] or false
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
  local names, fields, n = {}, {}, 0
  local function ask(name)
    held[name], waits[name] = 0, 0
    n = n + 1
    names[n], fields[2 * n - 1], fields[2 * n] = name, '+' .. name, '-' .. name
  end
  for i = 1, #records do
    local limits = records[i] and records[i][1] or NONE
    for j = 1, #limits do
      local kind, name = limits[j][1], limits[j][2]
      if not held[name] and kind ~= 'u' then ask(name) end
    end
  end
  for i = 1, #fields, 4000 do
    local found = redis.call('HMGET', k.permits, unpack(fields, i, math.min(i + 3999, #fields)))
    for j = 1, #found, 2 do
      local name = names[(i + j) / 2]
      if found[j] then held[name] = tonumber(found[j]) or 0 end
      if found[j + 1] then waits[name] = tonumber(found[j + 1]) or 0 end
    end
  end
  for i = 1, n do had[names[i]], waited[names[i]] = held[names[i]], waits[names[i]] end
end
local function count(k, name)
  if not held[name] then flow.foresee(k, {{{{'c', name}}}}) end
  return held[name]
end
function flow.waiting(k, name) return count(k, name) and waits[name] end
-- Somebody came into a line, or left it.
function flow.line_changed(k, name, by)
  count(k, name)
  waits[name] = waits[name] + by
end
-- Whether a message at this place has its permit of this kind.
local function has(place, kind)
  if place == '' then return false end
  if place == '+' then return kind == 'k' end
  return (kind ~= 't' and kind ~= 'w') or string.byte(place, -1) ~= 33
end
flow.has = has

-- Take every permit a message asks for, or none but its turn in a strict order; answers the limit that lacks room, or nil,
-- and its place then. What it has already, by its place, it does not ask for. `from` is the line that it comes from: elsewhere
-- those that wait already go first. A turn is kept while it waits for another limit, or the next one of its key would pass it.
function flow.admit(k, limits, now, place, from)
  for turn = 1, 2 do
    for i = 1, #limits do
      local limit = limits[i]
      local kind, name = limit[1], limit[2]
      if kind ~= 'u' and (kind == 'k') == (turn == 1) and not has(place, kind) then
        if name ~= from and flow.waiting(k, name) > 0 then return limit, place end
        if not flow.room(k, limit, now) then return limit, place end
        if kind == 'k' then
          held[name], place = count(k, name) + 1, '+'
        end
      end
    end
  end
  for i = 1, #limits do
    local kind, name = limits[i][1], limits[i][2]
    if kind ~= 'u' and not has(place, kind) then
      held[name] = count(k, name) + 1
    end
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

local function pairs_of(map)
  local list = {}
  for field, value in pairs(map) do list[#list + 1], list[#list + 2] = field, value end
  return list
end

-- Write what has gathered.
function flow.flush(k)
  flow.flush_lines(k)
  spread('HSET', k.flow, pairs_of(places))
  flow.flush_rates(k, flow.now())
  local numbers, zeros = {}, {}
  local function write(field, n)
    if n <= 0 then
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
  spread('HSET', k.permits, numbers)
  many('HDEL', k.permits, zeros)
  spread('HSET', k.unique, pairs_of(owners))
  places, owners = {}, {}
  for name, limit in pairs(relook) do
    if flow.waiting(k, name) > 0 then flow.wake_later(k, limit, flow.now()) end
  end
  relook = {}
end
