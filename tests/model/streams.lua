-- Streams and consumer groups, as 7.0 has them and, where `M.version` is 6, as 6.2 has them.
-- A stream is {list, last_ms, last_seq, groups}; an entry {ms, seq, id, fields}. A group is {ms, seq, pel, cons};
-- a pending one {ms, seq, id, consumer, time, count}. Lists are in the order of their ids and short.
local M = ...
local C, get, fail, whole = M.commands, M.get, M.fail, M.whole
local format, match, tonumber = string.format, string.match, tonumber

for _, name in ipairs({'XADD', 'XREADGROUP', 'XACK', 'XCLAIM', 'XTRIM', 'XDEL', 'XGROUP'}) do M.writes[name] = true end

local LAST = 18446744073709551615
local known, n_known = {}, 0
local function id_of(text, seq)
  local found = known[text]
  if not found then
    local ms, low = match(text, '^(%d+)%-(%d+)$')
    if not ms then ms = match(text, '^(%d+)$') end
    if not ms then fail('ERR Invalid stream ID specified as stream command argument') end
    if n_known > 5000 then known, n_known = {}, 0 end
    found, n_known = {tonumber(ms), low and tonumber(low)}, n_known + 1
    known[text] = found
  end
  return found[1], found[2] or seq
end
local function text_of(ms, seq) return format('%.0f-%.0f', ms, seq) end
local function less(am, as, bm, bs) return am < bm or (am == bm and as < bs) end

-- Ends of a range as (ms, seq, is it left out).
local function bound(text, seq)
  if text == '-' then return 0, 0, false end
  if text == '+' then return LAST, LAST, false end
  if text:sub(1, 1) == '(' then
    local ms, s = id_of(text:sub(2), seq)
    return ms, s, true
  end
  local ms, s = id_of(text, seq)
  return ms, s, false
end
local function within(list, from, to, count)
  local am, as, a_out = bound(from, 0)
  local bm, bs, b_out = bound(to, LAST)
  local out = {}
  for i = 1, #list do
    if #out >= count then break end
    local e = list[i]
    local low, high = less(e[1], e[2], am, as), less(bm, bs, e[1], e[2])
    if a_out and e[1] == am and e[2] == as then low = true end
    if b_out and e[1] == bm and e[2] == bs then high = true end
    if high then break end
    if not low then out[#out + 1] = e end
  end
  return out
end

local function find(list, ms, seq)
  for i = #list, 1, -1 do
    local e = list[i]
    if e[1] == ms and e[2] == seq then return i end
    if less(e[1], e[2], ms, seq) then return nil end
  end
end
local function insert(list, e)
  local i = #list
  while i > 0 and less(e[1], e[2], list[i][1], list[i][2]) do i = i - 1 end
  table.insert(list, i + 1, e)
end

local function stream(key)
  local found = get(key, 'stream')
  return found and found.v
end
local function make(key)
  return M.make(key, 'stream', {list = {}, last_ms = 0, last_seq = 0, groups = {}}).v
end
local function group(key, name)
  local s = stream(key)
  local g = s and s.groups[name]
  if not g then fail("NOGROUP No such key '" .. key .. "' or consumer group '" .. name .. "'") end
  return g, s
end
local function consumer(g, name)
  for i = 1, #g.cons do
    if g.cons[i] == name then return end
  end
  g.cons[#g.cons + 1] = name
end

local function cut(key, s, is_old)
  local n = 0
  while s.list[1] and is_old(s.list[1]) do
    if M.on_cut then M.on_cut(key, s, s.list[1]) end
    table.remove(s.list, 1)
    n = n + 1
  end
  return n
end
-- `~` may remove less than it could, whole nodes of a hundred entries: here there is one. `exact_trim` is the other end.
local function trim(key, s, a, at)
  local how, is_loose = a[at], false
  at = at + 1
  if a[at] == '~' or a[at] == '=' then is_loose, at = a[at] == '~', at + 1 end
  local limit, n = a[at], 0
  at = at + 1
  if a[at] == 'LIMIT' then at = at + 2 end
  if is_loose and not M.exact_trim then
    local newest = s.list[#s.list]
    if how ~= 'MINID' or not newest or not less(newest[1], newest[2], id_of(limit, 0)) then return 0, at end
  end
  if how == 'MINID' then
    local ms, seq = id_of(limit, 0)
    n = cut(key, s, function(e) return less(e[1], e[2], ms, seq) end)
  else
    n = cut(key, s, function() return #s.list > tonumber(limit) end)
  end
  return n, at
end

function C.XADD(a)
  local key, at, may_make, trimming = a[2], 3, true, nil
  if a[at] == 'NOMKSTREAM' then may_make, at = false, at + 1 end
  if a[at] == 'MAXLEN' or a[at] == 'MINID' then
    trimming = at
    at = at + ((a[at + 1] == '~' or a[at + 1] == '=') and 3 or 2)
  end
  local s = stream(key)
  if not s then
    if not may_make then return false end
    s = make(key)
  end
  local ms, seq
  if a[at] == '*' then
    if M.now > s.last_ms then ms, seq = M.now, 0 else ms, seq = s.last_ms, s.last_seq + 1 end
  else
    ms, seq = id_of(a[at], 0)
    if not less(s.last_ms, s.last_seq, ms, seq) then
      fail('ERR The ID specified in XADD is equal or smaller than the target stream top item')
    end
  end
  local fields = {}
  for i = at + 1, #a do fields[i - at] = a[i] end
  local id = text_of(ms, seq)
  s.list[#s.list + 1] = {ms, seq, id, fields}
  s.last_ms, s.last_seq = ms, seq
  if trimming then trim(key, s, a, trimming) end
  if M.on_add then M.on_add(key, id, fields) end
  return id
end
function C.XTRIM(a)
  local s = stream(a[2])
  return s and (trim(a[2], s, a, 3)) or 0
end
function C.XDEL(a)
  local s, n = stream(a[2]), 0
  for i = 3, #a do
    local at = s and find(s.list, id_of(a[i], 0))
    if at then
      table.remove(s.list, at)
      n = n + 1
    end
  end
  return n
end
function C.XLEN(a)
  local s = stream(a[2])
  return s and #s.list or 0
end
local function rows(found)
  local out = {}
  for i = 1, #found do out[i] = {found[i][3], found[i][4]} end
  return out
end
function C.XRANGE(a)
  local s = stream(a[2])
  return s and rows(within(s.list, a[3], a[4], a[6] and whole(a[6]) or 1e9)) or {}
end
function C.XREVRANGE(a)
  local s, out = stream(a[2]), {}
  if not s then return out end
  local found = within(s.list, a[4], a[3], 1e9)
  for i = #found, math.max(1, #found - (a[6] and whole(a[6]) or 1e9) + 1), -1 do
    out[#out + 1] = {found[i][3], found[i][4]}
  end
  return out
end

function C.XGROUP(a)
  local what, key, name = a[2], a[3], a[4]
  local s = stream(key)
  if not s then
    if what ~= 'CREATE' or a[6] ~= 'MKSTREAM' then
      fail('ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM '
        .. 'option to create an empty stream automatically.')
    end
    s = make(key)
  end
  if what == 'CREATE' then
    if s.groups[name] then fail('BUSYGROUP Consumer Group name already exists') end
    local ms, seq = s.last_ms, s.last_seq
    if a[5] ~= '$' then ms, seq = id_of(a[5], 0) end
    s.groups[name] = {ms = ms, seq = seq, pel = {}, cons = {}}
    return {ok = 'OK'}
  end
  if what == 'DESTROY' then
    local n = s.groups[name] and 1 or 0
    s.groups[name] = nil
    return n
  end
  local g = s.groups[name]
  if not g then fail("NOGROUP No such consumer group '" .. name .. "' for key name '" .. key .. "'") end
  local n = 0
  for i = #g.pel, 1, -1 do
    if g.pel[i].consumer == a[5] then
      table.remove(g.pel, i)
      n = n + 1
    end
  end
  for i = #g.cons, 1, -1 do
    if g.cons[i] == a[5] then table.remove(g.cons, i) end
  end
  return n
end

local function deliver(g, name, found)
  consumer(g, name)
  for i = 1, #found do
    local e = found[i]
    -- After a SETID or a group made anew below its old mark an entry may be pending already: it changes hands.
    local at = find(g.pel, e[1], e[2])
    if at then table.remove(g.pel, at) end
    insert(g.pel, {e[1], e[2], id = e[3], consumer = name, time = M.now, count = 1})
    g.ms, g.seq = e[1], e[2]
  end
end
function C.XREADGROUP(a)
  local g_name, name, count, at = a[3], a[4], 1e9, 5
  while a[at] ~= 'STREAMS' do
    if a[at] == 'COUNT' then count = whole(a[at + 1]) end
    at = at + 2
  end
  local n, out = (#a - at) / 2, {}
  for i = 1, n do
    local s = stream(a[at + i])
    if not s or not s.groups[g_name] then
      fail("NOGROUP No such key '" .. a[at + i] .. "' or consumer group '" .. g_name
        .. "' in XREADGROUP with GROUP option")
    end
  end
  for i = 1, n do
    local key = a[at + i]
    local s = stream(key)
    local g = s.groups[g_name]
    local found = within(s.list, '(' .. text_of(g.ms, g.seq), '+', count)
    if #found > 0 then
      deliver(g, name, found)
      if M.on_read then M.on_read(key, name, found) end
      out[#out + 1] = {key, rows(found)}
    end
  end
  if M.on_look then M.on_look(name, a, at, n, out) end
  return #out > 0 and out or false
end
M.stream, M.group, M.find, M.insert, M.within, M.less, M.id_of, M.text_of, M.consumer =
  stream, group, find, insert, within, less, id_of, text_of, consumer
