-- What P6 and P7 say of new entries: in order inside a lane, higher levels first, never before their time. See ghost.lua.
local M = ...
local match, sub = string.match, string.sub
-- The product's `max_starve` is 10 s: a lane that was not looked at for half of it may go first once (rule 7).
local STARVES = 5000
local first, looked, added_at, tick, levels

function M.watch_order()
  first, looked, added_at, tick, levels = {}, {}, {}, 0, {}
end
function M.order_add(key, entry)
  tick = tick + 1
  added_at[key .. '/' .. entry] = tick
end
-- A higher lane whose entries were there when this consumer last looked at it, and were left, or that it did not look
-- at since it last looked at this one.
local function passed_over(key, mine)
  for other, seen in pairs(mine) do
    if other ~= key and levels[other] > levels[key] then
      local s = M.db[other] and M.db[other].t == 'stream' and M.db[other].v
      local group = s and s.groups.workers
      for i = group and #s.list or 0, 1, -1 do
        local e = s.list[i]
        if not M.less(group.ms, group.seq, e[1], e[2]) then break end
        local is_new = (added_at[other .. '/' .. e[3]] or 0) > seen.tick
        if not is_new or (mine[key] and seen.tick <= mine[key].tick) then return other .. '/' .. e[3] end
      end
    end
  end
end
-- After a read: `a` from `at` + 1 on holds its n keys, `out` what it got.
function M.on_look(name, a, at, n, out)
  if not first or sub(a[at + 1], 1, #M.lane_prefix) ~= M.lane_prefix then return end
  local mine = looked[name]
  if not mine then
    mine = {}
    looked[name] = mine
  end
  tick = tick + 1
  for i = 1, n do
    local key = a[at + i]
    levels[key] = levels[key] or tonumber(match(sub(key, #M.lane_prefix + 1), '^%d+'))
  end
  for i = 1, #out do
    local key, rows = out[i][1], out[i][2]
    for j = 1, #rows do
      local ms, seq = M.id_of(rows[j][1], 0)
      local last = first[key]
      if last and not M.less(last[1], last[2], ms, seq) and not M.g.is_tainted then
        M.g.wrong = M.g.wrong or 'P6: out of order in its lane: ' .. key .. '/' .. rows[j][1]
      end
      first[key] = {ms, seq}
    end
    local before = mine[key]
    if n == 1 and not M.g.is_tainted and not M.g.is_stepped and not (before and M.now - before.at > STARVES) then
      local left = passed_over(key, mine)
      if left then M.g.wrong = M.g.wrong or 'P6: read before what is higher: ' .. key .. ' before ' .. left end
    end
  end
  for i = 1, n do mine[a[at + i]] = {tick = tick, at = M.now} end
end
