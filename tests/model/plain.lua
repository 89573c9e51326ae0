-- Texts, hashes, sets, sorted sets, lists: the commands that the scripts and services use, in the forms they use.
local M = ...
local C, get, make, fail, whole = M.commands, M.get, M.make, M.fail, M.whole
local put, drop, ordered = M.put, M.drop, M.ordered

local function writes(...)
  for _, name in ipairs({...}) do M.writes[name] = true end
end
writes('SET', 'DEL', 'HSET', 'HDEL', 'HINCRBY', 'HSETNX', 'ZADD', 'ZREM', 'FLUSHALL')

local function emptied(key, found)
  if found.v.n == 0 then M.db[key] = nil end
end

function C.TIME()
  local s = math.floor(M.now / 1000)
  return {string.format('%.0f', s), string.format('%.0f', (M.now - s * 1000) * 1000)}
end
function C.TYPE(a)
  local found = get(a[2])
  return {ok = found and found.t or 'none'}
end
function C.EXISTS(a) return get(a[2]) and 1 or 0 end
function C.DEL(a)
  local n = 0
  for i = 2, #a do
    if get(a[i]) then
      M.db[a[i]], n = nil, n + 1
      if M.on_del then M.on_del(a[i]) end
    end
  end
  return n
end
function C.FLUSHALL()
  for key in pairs(M.db) do M.db[key] = nil end
  return {ok = 'OK'}
end
function C.PEXPIRE(a)
  local found = get(a[2])
  if not found then return 0 end
  local ms = whole(a[3])
  if ms <= 0 then M.db[a[2]] = nil else found.ex = M.now + ms end
  return 1
end
function C.PTTL(a)
  local found = get(a[2])
  if not found then return -2 end
  return found.ex and found.ex - M.now or -1
end
function C.PERSIST(a)
  local found = get(a[2])
  if not found or not found.ex then return 0 end
  found.ex = nil
  return 1
end

-- Of memory there is what the schedule says; nothing weighs much.
function C.INFO()
  return 'maxmemory:100\r\nused_memory:' .. (M.is_full and 99 or 1) .. '\r\n'
end
function C.MEMORY() return 1000 end

function C.GET(a)
  local found = get(a[2], 'string')
  return found and found.v or false
end
function C.MGET(a)
  local out = {}
  for i = 2, #a do
    local found = get(a[i])
    out[i - 1] = found and found.t == 'string' and found.v or false
  end
  return out
end
function C.SET(a)
  local made = {t = 'string', v = a[3]}
  if a[4] then
    if a[4] ~= 'PX' then fail('ERR syntax error') end
    local ms = whole(a[5])
    if ms <= 0 then fail("ERR invalid expire time in 'set' command") end
    made.ex = M.now + ms
  end
  M.db[a[2]] = made
  if M.on_set then M.on_set(a[2], a[3]) end
  return {ok = 'OK'}
end

local function hash(key) return get(key, 'hash') or make(key, 'hash', ordered()) end
function C.HSET(a)
  local h, n = hash(a[2]).v, 0
  for i = 3, #a, 2 do
    if put(h, a[i], a[i + 1]) then n = n + 1 end
  end
  return n
end
function C.HSETNX(a)
  local h = hash(a[2]).v
  if h.of[a[3]] ~= nil then return 0 end
  put(h, a[3], a[4])
  return 1
end
function C.HGET(a)
  local h = get(a[2], 'hash')
  return h and h.v.of[a[3]] or false
end
function C.HMGET(a)
  local h, out = get(a[2], 'hash'), {}
  for i = 3, #a do out[i - 2] = h and h.v.of[a[i]] or false end
  return out
end
function C.HDEL(a)
  if M.on_hdel then M.on_hdel(a[2], a) end
  local h, n = get(a[2], 'hash'), 0
  if not h then return 0 end
  for i = 3, #a do
    if drop(h.v, a[i]) then n = n + 1 end
  end
  emptied(a[2], h)
  return n
end
function C.HEXISTS(a)
  local h = get(a[2], 'hash')
  return h and h.v.of[a[3]] ~= nil and 1 or 0
end
function C.HLEN(a)
  local h = get(a[2], 'hash')
  return h and h.v.n or 0
end
local function names(found)
  local out = {}
  if found then
    for i = 1, found.v.n do out[i] = found.v.names[i] end
  end
  return out
end
function C.HKEYS(a) return names(get(a[2], 'hash')) end
function C.HGETALL(a)
  local h, out = get(a[2], 'hash'), {}
  if h then
    for i = 1, h.v.n do
      out[2 * i - 1], out[2 * i] = h.v.names[i], h.v.of[h.v.names[i]]
    end
  end
  return out
end
function C.HINCRBY(a)
  local h = hash(a[2]).v
  local n = tonumber(h.of[a[3]] or '0')
  if not n or n ~= math.floor(n) then fail('ERR hash value is not an integer') end
  n = n + whole(a[4])
  put(h, a[3], string.format('%.0f', n))
  return n
end

function C.SADD(a)
  local s, n = (get(a[2], 'set') or make(a[2], 'set', ordered())).v, 0
  for i = 3, #a do
    if put(s, a[i], true) then n = n + 1 end
  end
  return n
end
function C.SREM(a)
  local s, n = get(a[2], 'set'), 0
  if not s then return 0 end
  for i = 3, #a do
    if drop(s.v, a[i]) then n = n + 1 end
  end
  emptied(a[2], s)
  return n
end
function C.SMEMBERS(a) return names(get(a[2], 'set')) end

function C.RPUSH(a)
  local l = (get(a[2], 'list') or make(a[2], 'list', {n = 0})).v
  for i = 3, #a do
    l.n = l.n + 1
    l[l.n] = a[i]
  end
  return l.n
end
function C.LLEN(a)
  local l = get(a[2], 'list')
  return l and l.v.n or 0
end
function C.LPOP(a)
  local l = get(a[2], 'list')
  if not l then return false end
  local first = table.remove(l.v, 1)
  l.v.n = l.v.n - 1
  emptied(a[2], l)
  return first
end

-- A sorted set is a list in order; few members, so a search from the front is the fastest there is.
local function place(z, score, name)
  for i = 1, z.n do
    local other = z[i]
    if other[1] > score or (other[1] == score and other[2] > name) then return i end
  end
  return z.n + 1
end
local function taken(z, name)
  for i = 1, z.n do
    if z[i][2] == name then
      z.n = z.n - 1
      return table.remove(z, i)
    end
  end
end
local function text_of(score) return string.format('%.17g', score) end
function C.ZADD(a)
  local z, n = (get(a[2], 'zset') or make(a[2], 'zset', {n = 0})).v, 0
  for i = 3, #a, 2 do
    local score = tonumber(a[i])
    if not score then fail('ERR value is not a valid float') end
    if not taken(z, a[i + 1]) then n = n + 1 end
    if M.on_zadd then M.on_zadd(a[2], a[i + 1]) end
    table.insert(z, place(z, score, a[i + 1]), {score, a[i + 1]})
    z.n = z.n + 1
  end
  return n
end
function C.ZREM(a)
  local z, n = get(a[2], 'zset'), 0
  if not z then return 0 end
  for i = 3, #a do
    if taken(z.v, a[i]) then n = n + 1 end
  end
  emptied(a[2], z)
  return n
end
function C.ZSCORE(a)
  local z = get(a[2], 'zset')
  for i = 1, z and z.v.n or 0 do
    if z.v[i][2] == a[3] then return text_of(z.v[i][1]) end
  end
  return false
end
function C.ZCARD(a)
  local z = get(a[2], 'zset')
  return z and z.v.n or 0
end
function C.ZRANGE(a)
  local z, out = get(a[2], 'zset'), {}
  if not z then return out end
  local first, last = whole(a[3]), whole(a[4])
  if last < 0 then last = z.v.n + last end
  for i = first + 1, math.min(last + 1, z.v.n) do
    out[#out + 1] = z.v[i][2]
    if a[5] then out[#out + 1] = text_of(z.v[i][1]) end
  end
  return out
end
local function bound(text) return text == '-inf' and -math.huge or text == '+inf' and math.huge or tonumber(text) end
function C.ZRANGEBYSCORE(a)
  local z, out = get(a[2], 'zset'), {}
  local least, most = bound(a[3]), bound(a[4])
  local skip, count = a[5] and whole(a[6]) or 0, a[5] and whole(a[7]) or math.huge
  for i = 1, z and z.v.n or 0 do
    local member = z.v[i]
    if member[1] >= least and member[1] <= most then
      if skip > 0 then skip = skip - 1
      elseif #out < count then out[#out + 1] = member[2] end
    end
  end
  return out
end
