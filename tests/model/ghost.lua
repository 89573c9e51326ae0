-- What a perfect observer knows, and what must hold after every write. Nothing of the product reads or writes this.
local M = ...
local g, keys
local sub, match = string.sub, string.match

-- `names` is a table of the queue's keys by their names in QueueKeys.
function M.watch(names)
  keys = names
  g = {ids = {}, by_body = {}, lanes = {}, entries = {}, settled = {}, outcome = {}, excused = {}, n = {}, signals = 0,
    not_before = {}, unkept = {}, n_kept = 0}
  M.g, M.lane_prefix = g, names.lane
  M.watch_order()
end
function M.expect(id, body) g.by_body[body] = id end
-- Data was taken away on purpose: nothing is promised of what was there.
function M.excuse()
  for i = 1, #g.ids do g.excused[g.ids[i]] = true end
  g.is_tainted = true
end
function M.taint() g.is_tainted = true end
local function wrong(text) g.wrong = g.wrong or text end

local function starts(key, prefix) return sub(key, 1, #prefix) == prefix end

function M.on_add(key, entry, fields)
  if not keys then return end
  if key == keys.control then g.signals = g.signals + 1 end
  if not starts(key, keys.lane) then return end
  local id
  for f = 1, #fields, 2 do
    if fields[f] == 'd' then id = g.by_body[fields[f + 1]] end
  end
  if not id then return end
  if not g.lanes[key] then
    g.lanes[key] = sub(key, #keys.lane + 1)
    g.lanes[#g.lanes + 1] = key
  end
  M.know(id)
  g.entries[key .. '/' .. entry] = id
  M.order_add(key, entry)
  if M.now < (g.not_before[id] or 0) and not g.is_stepped and not g.excused[id] then
    wrong('P7: too early on its lane: ' .. id)
  end
end
function M.know(id)
  if not g.n[id] then g.ids[#g.ids + 1] = id end
  g.n[id] = (g.n[id] or 0) + 1
end
-- What is scheduled is there before it comes to a lane.
function M.on_zadd(key, id)
  if keys and key == keys.due and not g.n[id] and M.keys then M.know(id) end
end
function M.not_before(id, ms) g.not_before[id] = ms end
function M.on_ack(key, was)
  if not keys or not g.lanes[key] then return end
  local place = key .. '/' .. was.id
  if g.settled[place] then wrong('I1: settled twice: ' .. place) end
  g.settled[place] = true
  if not M.keys or was.consumer == M.argv[1] then return end
  -- A success counts whoever has the entry by now; a retry or a failure only from who has it (rule 20).
  for a = 6, #M.argv do
    if M.argv[a] == was.id and match(M.argv[a - 2], '^[RD][ms!]*$') then
      wrong('P3: ' .. M.argv[1] .. ' decided about ' .. was.id .. ', which ' .. was.consumer .. ' has')
    end
  end
end
function M.on_set(key, value)
  if not keys or not starts(key, keys.result_prefix) then return end
  local id = sub(key, #keys.result_prefix + 1)
  if g.outcome[id] and not g.excused[id] then
    wrong('P3: a second outcome of ' .. id .. ': ' .. match(value, '^[^\n]*') .. ' after ' .. g.outcome[id])
  end
  g.outcome[id] = match(value, '^[^\n]*')
end
-- Only who gives back what is its own, and who takes over what was given back, may change an owner (P4).
function M.on_claim(p, name)
  if not keys or p.consumer == 'returned' then return end
  if name ~= 'returned' or not M.keys or M.argv[1] ~= p.consumer then
    wrong('P4: ' .. p.id .. ' was taken from ' .. p.consumer .. ' for ' .. name)
  end
end
local function is_reaping() return M.keys and M.argv[4] == 'reap' end
function M.on_del(key)
  if keys and is_reaping() then wrong('P4: a live consumer was taken: ' .. key) end
end
-- A copy that goes while nobody settled is on its way to due, or its entry is still there (rule 31).
local function on_unkept(names)
  for i = 3, #names do g.unkept[#g.unkept + 1] = names[i] end
end
function M.on_hdel(key, names)
  if keys and key == keys.kept then on_unkept(names) end
  if keys and key == keys.consumers and is_reaping() and M.get(keys.grace) then wrong('P4: taken in grace') end
end
function M.on_cut(key, s, e)
  if not keys or not g.lanes[key] then return end
  local place = key .. '/' .. e[3]
  local kept = M.db[keys.kept]
  if kept and kept.v.of[g.lanes[key] .. '/' .. e[3]] then return end
  if not g.settled[place] and not g.excused[g.entries[place] or ''] then wrong('P10: trimmed and not settled: ' .. place) end
end
function M.on_read(key, name, found)
  if not keys or not g.lanes[key] then return end
  for i = 1, #found do
    local place = key .. '/' .. found[i][3]
    if g.settled[place] then wrong('I1: settled, and read by ' .. name .. ' as new: ' .. place) end
  end
end

local function note_of(lane)
  local h = M.db[keys.restoring]
  local note = h and h.t == 'hash' and h.v.of[lane]
  if not note then return nil end
  local from, to = match(note, '^(%S+) (%S+) ')
  return from, to
end
local function is_reachable(group, lane, e)
  if not group or M.less(group.ms, group.seq, e[1], e[2]) or M.find(group.pel, e[1], e[2]) then return true end
  local from, to = note_of(lane)
  if not from then return false end
  local am, as = M.id_of(from, 0)
  local bm, bs = M.id_of(to, 0)
  return M.less(am, as, e[1], e[2]) and not M.less(bm, bs, e[1], e[2])
end

local function look_at_lane(key, live)
  local found, lane = M.db[key], g.lanes[key]
  if not found or found.t ~= 'stream' then return end
  local s = found.v
  local group = s.groups.workers
  local h = M.db[keys.low]
  local low = h and h.v.of[lane]
  local lm, ls
  if low and not g.is_stepped then lm, ls = M.id_of(low, 0) end
  local undelivered, kept = 0, M.db[keys.kept]
  for i = 1, #s.list do
    local e = s.list[i]
    local place = key .. '/' .. e[3]
    if group and M.less(group.ms, group.seq, e[1], e[2]) then undelivered = undelivered + 1 end
    if not g.settled[place] then
      local id = g.entries[place]
      if id then
        live[id] = (live[id] or 0) + 1
        if not g.excused[id] then
          if not is_reachable(group, lane, e) then wrong('P2: nobody will ever read ' .. place) end
          local is_kept = kept and kept.v.of[lane .. '/' .. e[3]]
          if lm and not is_kept and not M.less(lm, ls, e[1], e[2]) then wrong('rule 8: the low mark hides ' .. place) end
        end
      end
    end
  end
  if group and not g.is_tainted then
    local added, settled = M.db[keys.added], M.db[keys.settled]
    local n = tonumber(added and added.v.of[lane] or '0') - tonumber(settled and settled.v.of[lane] or '0') - #group.pel
    if n ~= undelivered then
      wrong('rule 33: ' .. lane .. ' counts ' .. n .. ' undelivered and has ' .. undelivered)
    end
  end
  if group then
    for i = 1, #group.pel do
      local place = key .. '/' .. group.pel[i].id
      if g.settled[place] then wrong('I1: settled and pending again: ' .. place) end
    end
  end
end

-- A copy stands for an entry that may be gone: its owner, or who takes over from it, must still be known.
local function look_at_copies(live)
  for i = 1, #g.unkept do
    local place = keys.lane .. g.unkept[i]
    local due = M.db[keys.due_body]
    if due and due.v.of[g.entries[place] or ''] then g.settled[place] = true end
  end
  g.unkept = {}
  local h = M.db[keys.kept]
  for j = 1, h and h.v.n or 0 do
    local place = keys.lane .. h.v.names[j]
    local lane, ms, seq = match(h.v.names[j], '^(.*)/(%d+)%-(%d+)$')
    local id, found = g.entries[place], M.db[keys.lane .. lane]
    local s = found and found.t == 'stream' and found.v
    if g.settled[place] then wrong('I2: a copy is left of ' .. place) end
    if id and not (s and M.find(s.list, tonumber(ms), tonumber(seq))) then live[id] = (live[id] or 0) + 1 end
    local group = s and s.groups.workers
    if id and not g.excused[id] and group and not M.find(group.pel, tonumber(ms), tonumber(seq)) then
      wrong('P2: nobody will ever run the copy of ' .. place)
    end
  end
end

local function look_at_marks()
  for i = 1, 2 do
    local h = M.db[i == 1 and keys.moved or keys.cancelled]
    for j = 1, h and h.v.n or 0 do
      local id = h.v.names[j]
      if g.outcome[id] and not g.excused[id] then wrong('I2: a mark is left of ' .. id .. ', which has ended') end
    end
  end
  local h = M.db[keys.suspects]
  for j = 1, h and h.v.n or 0 do
    if g.settled[keys.lane .. h.v.names[j]] then wrong('I2: a suspicion is left of ' .. h.v.names[j]) end
  end
end

-- Answers what is wrong now, or nil.
function M.check()
  if not keys then return nil end
  local live, waits, dead = {}, {}, {}
  if #g.unkept > 0 or M.db[keys.kept] then look_at_copies(live) end
  for i = 1, #g.lanes do look_at_lane(g.lanes[i], live) end
  local due, bodies = M.db[keys.due], M.db[keys.due_body]
  for i = 1, due and due.v.n or 0 do
    local id = due.v[i][2]
    live[id] = (live[id] or 0) + 1
    if not (bodies and bodies.v.of[id]) then wrong('I1: in due without a body: ' .. id) end
  end
  if (bodies and bodies.v.n or 0) > (due and due.v.n or 0) then wrong('I2: a body is left of what is not in due') end
  local letters = M.db[keys.dead]
  for i = 1, letters and letters.v.n or 0 do dead[letters.v[i][2]] = true end
  for i = 1, #g.ids do
    local id = g.ids[i]
    if not g.excused[id] then
      local n = live[id] or 0
      if n > 1 then wrong('I1: ' .. n .. ' live records of ' .. id) end
      if g.outcome[id] and n > 0 then wrong('I1: has ended and lives: ' .. id) end
      if not g.outcome[id] and n == 0 then wrong('P2: lost: ' .. id) end
      if dead[id] and not g.outcome[id] then wrong('I1: a dead letter without an outcome: ' .. id) end
    end
  end
  look_at_marks()
  return g.wrong
end

function M.is_over()
  for i = 1, #g.ids do
    if not g.outcome[g.ids[i]] and not g.excused[g.ids[i]] then return false end
  end
  return true
end
function M.unfinished()
  local out = {}
  for i = 1, #g.ids do
    if not g.outcome[g.ids[i]] and not g.excused[g.ids[i]] then out[#out + 1] = g.ids[i] end
  end
  return table.concat(out, ' ')
end
-- Keys that live without a reason; `has_ttl` answers whether that kind of key must have one, nil = there is no such kind.
function M.unowned(has_ttl)
  for key, found in pairs(M.db) do
    local must = has_ttl(key)
    if must == nil then return 'P10: a key of no kind: ' .. key end
    if must and not found.ex then return 'P10: a key without a life: ' .. key end
  end
end
