-- Whether a limit lets one more in, and what a start spends of a rate (rule 28). It goes on where flow.lua ends.
-- KEYS  those of flow.lua, in the table `k`.
-- ARGV  none of its own.
-- Returns  nothing: it adds to `flow`.
-- Atomic because  the including script is: a token that is seen here is still there when it is reserved or spent.
-- Cost  O(1), of a sliding window O(log starts).
-- Tokens that a bucket has now; what is reserved is still in it.
local function tokens(k, limit, now)
  local bucket = buckets[limit[2]]
  if not bucket then
    local had, at = string.match(redis.call('HGET', k.rates, limit[2]) or '', '^([%d.]+) (%d+) ')
    -- From a clock that was set back since then: no time has passed, and from now on it does.
    bucket = {tonumber(had), math.min(tonumber(at) or now, now)}
    if had and tonumber(at) > now then begun[limit[2]] = limit end
    buckets[limit[2]] = bucket
  end
  if not bucket[1] then return limit[4] end
  return math.min(limit[4], bucket[1] + math.max(0, now - bucket[2]) / limit[3])
end

-- Starts that a sliding window remembers.
local function starts(k, limit, now)
  local name = limit[2]
  if not started[name] then
    local first, last = range(name)
    redis.call('ZREMRANGEBYLEX', k.starts, '(' .. name .. NUL .. string.format('%016.0f', now + 1), last)
    redis.call('ZREMRANGEBYLEX', k.starts, first, '(' .. name .. NUL .. string.format('%016.0f', now - limit[4]))
    started[name] = redis.call('ZLEXCOUNT', k.starts, first, last)
  end
  return started[name]
end

local function is_paused(k, name)
  if paused[name] == nil then paused[name] = redis.pcall('HEXISTS', k.paused, 'group:' .. string.sub(name, 3)) == 1 end
  return paused[name]
end

local sizes = {}
-- How many messages of groups may be on the lanes of these tags at once (sweeper.py).
local function size_of(k, window)
  sizes[window] = sizes[window] or tonumber(redis.call('HGET', k.flow_state, window) or '') or 20
  return sizes[window]
end
-- Whether a limit lets one more in; a rate answers also when it will, in us since 1970, where time alone brings that.
function flow.room(k, limit, now)
  local kind, name = limit[1], limit[2]
  if kind == 'c' then return count(k, name) < limit[3] end
  if kind == 'k' then return count(k, name) < 1 end
  if kind == 'v' then return count(k, name) < size_of(k, name) end
  if kind == 'g' then return not is_paused(k, name) and (limit[4] == 0 or count(k, name) < limit[4]) end
  local reserved = count(k, name)
  if kind == 't' then
    local has = tokens(k, limit, now)
    -- The last digits of a sum of fractions must not hold a token back.
    if has + 1e-6 >= reserved + 1 then return true end
    return false, reserved + 1 <= limit[4] and math.ceil(now + (reserved + 1 - has) * limit[3])
  end
  if starts(k, limit, now) + reserved < limit[3] then return true end
  if reserved >= limit[3] then return false, false end
  local first, last = range(name)
  local oldest = redis.call('ZRANGEBYLEX', k.starts, first, last, 'LIMIT', 0, 1)[1]
  return false, (oldest and string.sub(oldest, #name + 2, #name + 17) or now) + limit[4] + 1
end

-- When the line of a rate is to be looked at next, where time alone makes room there.
function flow.wake_later(k, limit, now)
  local fits, at = flow.room(k, limit, now)
  if fits then at = now end
  if not at then return end
  redis.call('ZADD', k.wake, string.format('%.0f', at), limit[2])
  if redis.call('ZRANGE', k.wake, 0, 0)[1] == limit[2] then
    redis.pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', string.format('%.0f', at / 1000))
  end
end
function flow.look_again(limit) relook[limit[2]] = limit end

-- Drop the starts that a sliding window remembers, once its span is over.
function flow.forget_starts(k, name) redis.call('ZREMRANGEBYLEX', k.starts, range(name)) end

-- Spend the tokens that were reserved for a message, which starts now, and free names that are unique until then.
function flow.spend(k, id, limits, now)
  for i = 1, #limits do
    local limit = limits[i]
    local kind, name = limit[1], limit[2]
    if kind == 't' then
      buckets[name] = {math.max(0, tokens(k, limit, now) - 1), now}
    elseif kind == 'w' then
      started[name] = starts(k, limit, now) + 1
      remembered[#remembered + 1] = '0'
      remembered[#remembered + 1] = name .. NUL .. string.format('%016.0f', now) .. NUL .. id
    elseif kind == 'u' and limit[5] == 1 then
      if is_owner(redis.call('HGET', k.unique, name), id) then redis.call('HDEL', k.unique, name) end
    end
    if kind == 't' or kind == 'w' then
      held[name] = count(k, name) - 1
      begun[name], relook[name] = limit, limit
    end
  end
end

-- Let a key live at least so long from now on: what is in it means nothing once its span is over.
local function expire_after(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(ms) + 1000)) end
end
-- Write what starts have spent: the tokens left, when that was, and when the rate is as if nothing had been.
function flow.flush_rates(k, now)
  local fields, longest, longest_window = {}, 0, 0
  for name, limit in pairs(begun) do
    local left, span = 0, limit[4]
    if limit[1] == 't' then
      left = tokens(k, limit, now)
      span = (limit[4] - left) * limit[3]
    else
      longest_window = math.max(longest_window, span / 1000)
    end
    longest = math.max(longest, span / 1000)
    fields[#fields + 1], fields[#fields + 2] = name, string.format('%.6f %.0f %.0f', left, now, now + span)
  end
  if #fields == 0 then return end
  many('HSET', k.rates, fields)
  many('ZADD', k.starts, remembered)
  expire_after(k.rates, longest)
  if #remembered > 0 then expire_after(k.starts, longest_window) end
  begun, remembered = {}, {}
end
