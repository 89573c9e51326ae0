-- Limits of how many run, in which order and how fast: rooms, permits, lines and who is next (rule 28).
-- KEYS  none of its own: the including script passes a table `k` with flow, permits, parked, parked_body, ring, rates,
--       starts, wake, flow_state, unique, paused, due, due_body, moved, added and control; `streams` and `bells` by lane where it
--       may put a message there itself.
-- ARGV  none of its own.
-- Returns  nothing: it defines `flow`.
-- Atomic because  the including script is: a permit, the record that has it and the place of the message change together.
-- Cost  O(log members) per limit of a message. Permits are members of a sorted set, <limit> NUL <id>, and never a count:
-- what is there twice counts once, and who ends frees only its own.
-- A limit is {kind, name, …}: c = that many at once (n) · k = one at a time in order · g = a fair group (weight, n) ·
-- t = a bucket of tokens (us per token, burst) · w = so many in any span (n, us). The numbers are those of the message
-- that asks. u = unique, kept until it ends. All keys that this touches are sorted sets and hashes of ours.
local flow = {}
local NUL, SOH, WINDOW = '\0', '\1', '*'

function flow.now()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

function flow.is_on(k)
  local n = redis.pcall('HLEN', k.flow)
  return type(n) == 'number' and n > 0
end

local ZSETS = {'permits', 'parked', 'ring', 'starts', 'wake', 'due'}
local HASHES = {'flow', 'parked_body', 'rates', 'flow_state', 'unique', 'due_body', 'moved'}
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

-- The limits of a message, {} where it has none. The record is its place, a line of its own, and the packed limits.
function flow.limits(k, id)
  local record = redis.pcall('HGET', k.flow, id)
  if type(record) ~= 'string' then return {} end
  local cut = string.find(record, '\n', 1, true)
  local fine, limits = pcall(cmsgpack.unpack, string.sub(record, (cut or 0) + 1))
  return fine and type(limits) == 'table' and limits or {}, cut and string.sub(record, cut + 1)
end

local function count(key, name, from)
  return redis.call('ZLEXCOUNT', key, '[' .. name .. NUL .. (from or ''), '(' .. name .. SOH)
end
local function holds_permit(k, name, id) return redis.call('ZSCORE', k.permits, name .. NUL .. id) end
local function first_of_line(k, name)
  return redis.call('ZRANGEBYLEX', k.parked, '[' .. name .. NUL, '(' .. name .. SOH, 'LIMIT', 0, 1)[1]
end

-- Tokens that a bucket has now; what is reserved is still in it.
local function tokens(k, limit, now)
  local kept = redis.call('HGET', k.rates, limit[2])
  local had, at = string.match(kept or '', '^([%d.]+) (%d+) ')
  if not had then return limit[4] end
  return math.min(limit[4], tonumber(had) + math.max(0, now - at) / limit[3])
end

-- Whether nothing of a group may come now, whatever room its queue has: it is paused, or at its own limit.
local function is_held_back(k, limit)
  return redis.pcall('HEXISTS', k.paused, 'group:' .. string.sub(limit[2], 3)) == 1
    or (limit[4] > 0 and count(k.permits, limit[2]) >= limit[4])
end

-- Whether a limit lets one more in; a rate answers also when it will, in us since 1970, where time alone brings that.
local function room(k, limit, now)
  local kind, name = limit[1], limit[2]
  if kind == 'c' then return count(k.permits, name) < limit[3] end
  if kind == 'k' then return count(k.permits, name) < 1 end
  if kind == 'g' then
    local most = tonumber(redis.call('HGET', k.flow_state, 'window') or '') or 20
    return count(k.permits, WINDOW) < most and not is_held_back(k, limit)
  end
  local reserved = count(k.permits, name)
  if kind == 't' then
    local has = tokens(k, limit, now)
    -- The last digits of a sum of fractions must not hold a token back.
    if has + 1e-6 >= reserved + 1 then return true end
    return false, reserved + 1 <= limit[4] and math.ceil(now + (reserved + 1 - has) * limit[3])
  end
  local oldest = string.format('%016.0f', now - limit[4])
  redis.call('ZREMRANGEBYLEX', k.starts, '[' .. name .. NUL, '(' .. name .. NUL .. oldest)
  if count(k.starts, name) + reserved < limit[3] then return true end
  local first = redis.call('ZRANGEBYLEX', k.starts, '[' .. name .. NUL, '(' .. name .. SOH, 'LIMIT', 0, 1)[1]
  return false, first and reserved < limit[3] and string.sub(first, #name + 2, #name + 17) + limit[4] + 1
end

-- Take every permit a message asks for, or none; answers the limit that lacks room, or nothing. `from` is the line that
-- it comes from: elsewhere those that wait already go first.
function flow.admit(k, id, limits, now, from)
  for i = 1, #limits do
    local limit = limits[i]
    if limit[1] ~= 'u' and not holds_permit(k, limit[2], id) then
      if limit[2] ~= from and first_of_line(k, limit[2]) then return limit end
      if not room(k, limit, now) then return limit end
    end
  end
  for i = 1, #limits do
    local kind, name = limits[i][1], limits[i][2]
    if kind ~= 'u' then redis.call('ZADD', k.permits, 0, name .. NUL .. id) end
    if kind == 'g' then redis.call('ZADD', k.permits, 0, WINDOW .. NUL .. id) end
  end
end

local function virtual_time(k) return tonumber(redis.call('HGET', k.flow_state, 'served') or '') or 0 end

-- Let a key live at least so long from now on: what is in it means nothing once its span is over.
local function expire_after(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(ms) + 1000)) end
end

-- When the line of a rate is to be looked at next, where time alone makes room there.
local function wake_later(k, limit, now)
  local fits, at = room(k, limit, now)
  if fits then at = now end
  if not at then return end
  redis.call('ZADD', k.wake, string.format('%.0f', at), limit[2])
  local head = redis.call('ZRANGE', k.wake, 0, 0)[1]
  if head == limit[2] then
    redis.pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', string.format('%.0f', at / 1000))
  end
end

-- Let a message wait in the line of a limit. Strict order knows no priority; else higher levels go first.
function flow.park(k, id, limit, place, now)
  local name = limit[2]
  local level = limit[1] == 'k' and 0 or 9 - (tonumber(string.sub(place.lane, 1, 1)) or 0)
  place.arrival = place.arrival or redis.call('HINCRBY', k.flow_state, 'arrivals', 1)
  local order = level .. string.format('%015.0f', place.arrival)
  redis.call('ZADD', k.parked, 0, name .. NUL .. order .. NUL .. id)
  local body = name .. '\n' .. order .. '\n' .. place.lane .. '\n' .. place.past .. '\n' .. place.body
  redis.call('HSET', k.parked_body, id, body)
  if limit[1] == 'g' then redis.call('ZADD', k.ring, 'NX', virtual_time(k) + 1 / limit[3], name) end
  if limit[1] == 't' or limit[1] == 'w' then wake_later(k, limit, now) end
end

-- What waits under an id: its line, its order there and its place; nothing where it does not wait.
function flow.parked(k, id)
  local record = redis.pcall('HGET', k.parked_body, id)
  if type(record) ~= 'string' then return nil end
  local name, order, lane, past, body = string.match(record, '^([^\n]*)\n(%d+)\n([^\n]*)\n([^\n]*)\n(.*)$')
  if not name then return nil end
  return {name = name, order = order, lane = lane, past = past, body = body, arrival = tonumber(string.sub(order, 2))}
end

-- Take a message out of its line; false where it does not stand there.
function flow.leave(k, id, place)
  if redis.call('ZREM', k.parked, place.name .. NUL .. place.order .. NUL .. id) ~= 1 then return false end
  redis.call('HDEL', k.parked_body, id)
  if not first_of_line(k, place.name) then redis.call('ZREM', k.ring, place.name) end
  return true
end

-- Note where an admitted message is, so that who looks after the permits finds it.
function flow.placed(k, id, packed, where) redis.call('HSET', k.flow, id, where .. '\n' .. packed) end

local function put(k, id, place, packed)
  local stream = k.streams and k.streams[place.lane]
  local entry = stream and redis.pcall('XADD', stream, 'NOMKSTREAM', '*', 'a', place.past, 'd', place.body)
  if type(entry) == 'string' then
    redis.call('HSET', k.moved, id, place.lane .. '\n' .. entry)
    flow.placed(k, id, packed, place.lane .. '/' .. entry)
    redis.pcall('HINCRBY', k.added, place.lane, 1)
    local bell = k.bells[place.lane]
    if redis.pcall('LLEN', bell) == 0 then redis.pcall('RPUSH', bell, '1') end
    return
  end
  local now = string.format('%.0f', math.floor(flow.now() / 1000))
  redis.call('ZADD', k.due, now, id)
  redis.call('HSET', k.due_body, id, place.lane .. '\n' .. place.past .. '\n' .. place.body)
  redis.pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', now)
end

local function next_in(k, line)
  if line ~= WINDOW then return line end
  local group = redis.call('ZRANGE', k.ring, 0, 0, 'WITHSCORES')
  return group[1], tonumber(group[2])
end

-- Let those in who have room now, first come first, `most` of them; the rest goes on at the promoter's next look.
function flow.wake(k, line, now, most)
  for _ = 1, most do
    local name, served = next_in(k, line)
    local first = name and first_of_line(k, name)
    if not first then
      if not served then return end
      redis.call('ZREM', k.ring, name)
    else
      local id = string.sub(first, #name + 19)
      local place, limits, packed = flow.parked(k, id), flow.limits(k, id)
      if not place or not packed or place.name ~= name then
        redis.call('ZREM', k.parked, first)  -- not ours, or its record is gone
      else
        local lacks = flow.admit(k, id, limits, now, name)
        if not lacks then
          flow.leave(k, id, place)
          put(k, id, place, packed)
          if served then
            local weight = 1
            for i = 1, #limits do if limits[i][2] == name then weight = limits[i][3] end end
            redis.call('HSET', k.flow_state, 'served', string.format('%.17g', served))
            if redis.call('ZSCORE', k.ring, name) then redis.call('ZINCRBY', k.ring, 1 / weight, name) end
          end
        elseif lacks[2] ~= name then
          flow.leave(k, id, place)
          flow.park(k, id, lacks, place, now)
        elseif served and is_held_back(k, lacks) then
          redis.call('ZREM', k.ring, name)  -- the next one's turn, until one of it ends or it is resumed
        else
          if lacks[1] == 't' or lacks[1] == 'w' then wake_later(k, lacks, now) end
          return
        end
      end
    end
  end
  redis.call('ZADD', k.wake, 'NX', string.format('%.0f', now), line)
  redis.pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', '0')
end

-- Drop the starts that a sliding window remembers, once its span is over.
function flow.forget_starts(k, name)
  redis.call('ZREMRANGEBYLEX', k.starts, '[' .. name .. NUL, '(' .. name .. SOH)
end

-- Spend the tokens that were reserved for a message, which starts now, and free names that are unique until then.
function flow.spend(k, id, limits, now)
  for i = 1, #limits do
    local limit = limits[i]
    local kind, name = limit[1], limit[2]
    if kind == 't' then
      local left = math.max(0, tokens(k, limit, now) - 1)
      local full_us = (limit[4] - left) * limit[3]
      redis.call('HSET', k.rates, name, string.format('%.6f %.0f %.0f', left, now, now + full_us))
      expire_after(k.rates, full_us / 1000)
    elseif kind == 'w' then
      redis.call('ZADD', k.starts, 0, name .. NUL .. string.format('%016.0f', now) .. NUL .. id)
      expire_after(k.starts, limit[4] / 1000)
      redis.call('HSET', k.rates, name, string.format('0 %.0f %.0f', now, now + limit[4]))
      expire_after(k.rates, limit[4] / 1000)
    elseif kind == 'u' and limit[5] == 1 then
      local owner = redis.call('HGET', k.unique, name)
      if owner and string.match(owner, '^(%x+) 0$') == id then redis.call('HDEL', k.unique, name) end
    end
    if (kind == 't' or kind == 'w') and redis.call('ZREM', k.permits, name .. NUL .. id) == 1 then
      if first_of_line(k, name) then wake_later(k, limit, now) end
    end
  end
end

-- Give back what a message holds, and let the next ones in. On its way to due it keeps its turn in a strict order, and
-- its limits. What is called for must have left its place already (I1).
function flow.free(k, id, is_retry)
  local limits, packed = flow.limits(k, id)
  if not packed then return end
  local freed = {}
  for i = 1, #limits do
    local kind, name = limits[i][1], limits[i][2]
    if kind == 'u' then
      local owner = not is_retry and redis.call('HGET', k.unique, name)
      if owner and string.match(owner, '^(%x+) 0$') == id then redis.call('HDEL', k.unique, name) end
    elseif not (is_retry and kind == 'k') and redis.call('ZREM', k.permits, name .. NUL .. id) == 1 then
      freed[#freed + 1] = name
      if kind == 'g' then
        redis.call('ZREM', k.permits, WINDOW .. NUL .. id)
        if first_of_line(k, name) then redis.call('ZADD', k.ring, 'NX', virtual_time(k), name) end
        freed[#freed] = WINDOW
      end
    end
  end
  if is_retry then flow.placed(k, id, packed, '') else redis.call('HDEL', k.flow, id) end
  local now = #freed > 0 and flow.now()
  for i = 1, #freed do flow.wake(k, freed[i], now, 10) end
end
