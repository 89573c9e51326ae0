-- What a group knows of what it handed out: acknowledge, claim, look.
local M = ...
local C, whole, fail = M.commands, M.whole, M.fail
local stream, group, find, insert, within = M.stream, M.group, M.find, M.insert, M.within
local id_of, text_of, consumer = M.id_of, M.text_of, M.consumer
local LAST = '18446744073709551615'

function C.XACK(a)
  local s = stream(a[2])
  local g, n = s and s.groups[a[3]], 0
  if not g then return 0 end
  for i = 4, #a do
    local at = find(g.pel, id_of(a[i], 0))
    if at then
      local was = table.remove(g.pel, at)
      n = n + 1
      if M.on_ack then M.on_ack(a[2], was) end
    end
  end
  return n
end

local function options(a, at)
  local o = {}
  while a[at] do
    local name = a[at]
    if name == 'JUSTID' or name == 'FORCE' then o[name], at = true, at + 1
    else o[name], at = whole(a[at + 1]), at + 2 end
  end
  o.time = o.IDLE and M.now - o.IDLE or o.TIME or M.now
  if o.time < 0 or o.time > M.now then o.time = M.now end
  return o
end
-- Answers what is claimed, or nil; a second answer tells that it is gone from the stream.
local function claim(g, s, name, min_idle, ms, seq, o)
  local at, entry = find(g.pel, ms, seq), find(s.list, ms, seq)
  if not entry and M.version >= 7 then
    if at then table.remove(g.pel, at) end
    return nil
  end
  local p = at and g.pel[at]
  if not p then
    if not o.FORCE or not entry then return nil end
    p = {ms, seq, id = text_of(ms, seq), consumer = nil, time = M.now, count = 1}
    insert(g.pel, p)
  elseif min_idle > 0 and M.now - p.time < min_idle then
    return nil
  end
  consumer(g, name)
  if p.consumer and p.consumer ~= name and M.on_claim then M.on_claim(p, name) end
  p.consumer, p.time = name, o.time
  if o.RETRYCOUNT then p.count = o.RETRYCOUNT elseif not o.JUSTID then p.count = p.count + 1 end
  return p, entry and s.list[entry]
end
function C.XCLAIM(a)
  local g, s = group(a[2], a[3])
  local name, min_idle, at, out = a[4], whole(a[5]), 6, {}
  while a[at] and string.find(a[at], '^%d+%-?%d*$') do at = at + 1 end
  local o = options(a, at)
  for i = 6, at - 1 do
    local ms, seq = id_of(a[i], 0)
    local p, entry = claim(g, s, name, min_idle, ms, seq, o)
    if p then
      if o.JUSTID then out[#out + 1] = p.id
      else out[#out + 1] = entry and {p.id, entry[4]} or false end
    end
  end
  return out
end

local function summary(g)
  if #g.pel == 0 then return {0, false, false, false} end
  local by, names = {}, {}
  for i = 1, #g.pel do
    local name = g.pel[i].consumer
    if not by[name] then names[#names + 1] = name end
    by[name] = (by[name] or 0) + 1
  end
  table.sort(names)
  local out = {}
  for i = 1, #names do out[i] = {names[i], string.format('%.0f', by[names[i]])} end
  return {#g.pel, g.pel[1].id, g.pel[#g.pel].id, out}
end
function C.XPENDING(a)
  local g = group(a[2], a[3])
  if not a[4] then return summary(g) end
  local at, min_idle = 4, 0
  if a[at] == 'IDLE' then min_idle, at = whole(a[at + 1]), at + 2 end
  local count, name, out = whole(a[at + 2]), a[at + 3], {}
  local found = within(g.pel, a[at], a[at + 1], 1e9)
  for i = 1, #found do
    local p = found[i]
    if #out >= count then break end
    if (not name or p.consumer == name) and (min_idle == 0 or M.now - p.time >= min_idle) then
      out[#out + 1] = {p.id, p.consumer, math.max(0, M.now - p.time), p.count}
    end
  end
  return out
end

local function names_of(groups)
  local out = {}
  for name in pairs(groups) do out[#out + 1] = name end
  table.sort(out)
  return out
end
local function info_groups(s)
  local out = {}
  for i, name in ipairs(names_of(s.groups)) do
    local g = s.groups[name]
    out[i] = {'name', name, 'consumers', #g.cons, 'pending', #g.pel, 'last-delivered-id', text_of(g.ms, g.seq)}
  end
  return out
end
function C.XINFO(a)
  local what, s = a[2], stream(a[3])
  if not s then fail('ERR no such key') end
  if what == 'STREAM' then
    return {'length', #s.list, 'last-generated-id', text_of(s.last_ms, s.last_seq), 'groups', #names_of(s.groups)}
  end
  if what == 'GROUPS' then return info_groups(s) end
  local g, out = s.groups[a[4]], {}
  if not g then fail("NOGROUP No such consumer group '" .. a[4] .. "' for key name '" .. a[3] .. "'") end
  local sorted = {}
  for i = 1, #g.cons do sorted[i] = g.cons[i] end
  table.sort(sorted)
  for i = 1, #sorted do
    local n = 0
    for j = 1, #g.pel do
      if g.pel[j].consumer == sorted[i] then n = n + 1 end
    end
    out[i] = {'name', sorted[i], 'pending', n, 'idle', 0}
  end
  return out
end
