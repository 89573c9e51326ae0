-- Lines of messages that wait for a limit, who of them is next, and what an end gives back (rule 28). It goes on where
-- room.lua ends.
-- KEYS  those of flow.lua, in the table `k`.
-- ARGV  none of its own.
-- Returns  nothing: it adds to `flow`.
-- Atomic because  the including script is: who leaves a line has its permits and its place on a lane in the same step.
-- Cost  O(log members) for each that comes, waits or goes on; the first ones of a line are read together.
-- Bodies are: line, order there, lane, attempt record, message, a line of text each. Groups take turns in a ring by virtual
-- time: a turn costs 1 / weight, and a group that comes anew begins at the time of the last turn.
-- What flow.flush_lines writes: into lines and out of them, new groups by weight, places of those that went on, how many
-- went to which lane; and the lines that this concerns.
local joined, bodies, left, left_bodies, entered, moves, adds, touched = {}, {}, {}, {}, {}, {}, {}, {}
-- The first ones of a line, read ahead; {last arrival given, last that is ours}; virtual time.
local fronts, arrivals, served = {}, {0, 0}, nil
local AHEAD, GROUP_AHEAD, TURNS = 50, 2, 40

local function virtual_time(k)
  served = served or tonumber(redis.call('HGET', k.flow_state, 'served') or '') or 0
  return served
end

function flow.flush_lines(k)
  many('ZREM', k.parked, left)
  many('HDEL', k.parked_body, left_bodies)
  spread('ZADD', k.parked, joined)
  many('HSET', k.parked_body, bodies)
  for name, weight in pairs(entered) do redis.call('ZADD', k.ring, 'NX', virtual_time(k) + 1 / weight, name) end
  spread('HSET', k.moved, moves)
  for lane, n in pairs(adds) do
    redis.pcall('HINCRBY', k.added, lane, n)
    if redis.pcall('LLEN', k.bells[lane]) == 0 then redis.pcall('RPUSH', k.bells[lane], '1') end
  end
  joined, bodies, left, left_bodies, entered, moves, adds, touched = {}, {}, {}, {}, {}, {}, {}, {}
end
-- What is to be read of a line must stand there.
function flow.settle_line(k, name)
  if touched[name] then flow.flush_lines(k) end
end

-- Keep numbers for so many messages that may have to wait; answers nothing.
function flow.reserve(k, n)
  if redis.call('EXISTS', k.flow_state) == 0 then spread('HSET', k.flow_state, {'arrivals', '0'}) end
  local last = redis.call('HINCRBY', k.flow_state, 'arrivals', n)
  arrivals = {last - n, last}
end
local function next_arrival(k)
  if arrivals[1] == arrivals[2] then flow.reserve(k, 1) end
  arrivals[1] = arrivals[1] + 1
  return arrivals[1]
end

-- Let a message wait in the line of a limit. Strict order knows no priority; else higher levels go first.
function flow.park(k, id, limit, place)
  local name = limit[2]
  local level = limit[1] == 'k' and 0 or 9 - (tonumber(string.sub(place.lane, 1, 1)) or 0)
  local order = level .. string.format('%015.0f', place.arrival or next_arrival(k))
  joined[#joined + 1], joined[#joined + 2] = '0', name .. NUL .. order .. NUL .. id
  bodies[#bodies + 1] = id
  bodies[#bodies + 1] = name .. '\n' .. order .. '\n' .. place.lane .. '\n' .. place.past .. '\n' .. place.body
  flow.line_changed(k, name, 1)
  touched[name], fronts[name] = true, nil
  if limit[1] == 'g' then entered[name] = entered[name] or limit[3] end
  if limit[1] == 't' or limit[1] == 'w' then flow.look_again(limit) end
end
local function place_of(record)
  local a = type(record) == 'string' and string.find(record, '\n', 1, true)
  local b = a and string.find(record, '\n', a + 1, true)
  local c = b and string.find(record, '\n', b + 1, true)
  local d = c and string.find(record, '\n', c + 1, true)
  local order = d and string.sub(record, a + 1, b - 1)
  if not order or not string.find(order, '^%d+$') then return nil end
  return {
    name = string.sub(record, 1, a - 1), order = order, lane = string.sub(record, b + 1, c - 1),
    past = string.sub(record, c + 1, d - 1), body = string.sub(record, d + 1), arrival = tonumber(string.sub(order, 2)),
  }
end
-- What waits under an id: its line, its order there and its place; nothing where it does not wait.
function flow.parked(k, id) return place_of(redis.pcall('HGET', k.parked_body, id)) end

-- Take a message out of its line; false where it does not stand there.
function flow.leave(k, id, place)
  if redis.call('ZREM', k.parked, place.name .. NUL .. place.order .. NUL .. id) ~= 1 then return false end
  redis.call('HDEL', k.parked_body, id)
  flow.line_changed(k, place.name, -1)
  fronts[place.name] = nil
  if flow.waiting(k, place.name) == 0 then redis.call('ZREM', k.ring, place.name) end
  return true
end

local function put(k, id, place, packed)
  local stream = k.streams and k.streams[place.lane]
  local entry = stream and redis.pcall('XADD', stream, 'NOMKSTREAM', '*', 'a', place.past, 'd', place.body)
  if type(entry) == 'string' then
    moves[#moves + 1], moves[#moves + 2] = id, place.lane .. '\n' .. entry
    adds[place.lane] = (adds[place.lane] or 0) + 1
    flow.placed(id, packed, place.lane .. '/' .. entry)
    return
  end
  local now = string.format('%.0f', math.floor(flow.now() / 1000))
  flow.placed(id, packed, '*')
  redis.call('ZADD', k.due, now, id)
  redis.call('HSET', k.due_body, id, place.lane .. '\n' .. place.past .. '\n' .. place.body)
  redis.pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', now)
end
-- The first one of a line, nil = nobody waits there.
local function first_of(k, name, ahead)
  local front = fronts[name]
  if front and front.at <= #front then return front[front.at] end
  if not front or not front.is_all then
    flow.settle_line(k, name)
    local first, last = range(name)
    local members = redis.call('ZRANGEBYLEX', k.parked, first, last, 'LIMIT', 0, ahead)
    if #members == 0 then return nil end
    local ids = {}
    for i = 1, #members do ids[i] = string.sub(members[i], #name + 19) end
    local records, waiting = flow.records(k, ids), redis.call('HMGET', k.parked_body, unpack(ids))
    flow.foresee(k, records)
    front = {at = 1, is_all = #members < ahead}
    for i = 1, #ids do
      front[i] = {member = members[i], id = ids[i], record = records[i], place = place_of(waiting[i])}
    end
    fronts[name] = front
    return front[1]
  end
end
-- Let the first one leave its line; its body stays where it goes to another line.
local function step_out(k, name, first, keeps_body)
  local front = fronts[name]
  front.at = front.at + 1
  left[#left + 1] = first.member
  if not keeps_body then left_bodies[#left_bodies + 1] = first.id end
  touched[name] = true
  flow.line_changed(k, name, -1)
end

-- Ask for the first one of a line; answers what came of it: "gone", "in", "elsewhere", or the limit that lacks room.
local function try(k, name, first, now)
  local record, place = first.record, first.place
  if not record or not place or place.name ~= name then
    step_out(k, name, first, true)  -- not ours, or its record is gone
    return 'gone'
  end
  local lacks, keeps = flow.admit(k, record[1], now, record[3], name)
  if lacks and lacks[2] == name then return lacks end
  step_out(k, name, first, lacks)
  if lacks then
    flow.park(k, first.id, lacks, place)
    flow.placed(first.id, record[2], keeps)
    return 'elsewhere'
  end
  put(k, first.id, place, record[2])
  return 'in'
end
local function own_limit(first, name)
  for i = 1, #first.record[1] do if first.record[1][i][2] == name then return first.record[1][i] end end
end

-- Both answer whether there is nothing more to do here now; `most` is how many they look at.
local function wake_line(k, name, now, most, ahead)
  for _ = 1, most do
    local first = first_of(k, name, ahead)
    if not first then return true end
    local said = try(k, name, first, now)
    local limit = type(said) == 'table' and said or (said == 'in' and own_limit(first, name))
    -- That the next one has room, or when it has, depends on numbers of its own: nearly always those of this one.
    if limit and (said ~= 'in' or not flow.room(k, limit, now)) then
      if limit[1] == 't' or limit[1] == 'w' then flow.look_again(limit) end
      return true
    end
  end
end

local function turns_of(k)
  local flat, turns = redis.call('ZRANGE', k.ring, 0, TURNS - 1, 'WITHSCORES'), {}
  for i = 1, #flat, 2 do turns[#turns + 1] = {flat[i], tonumber(flat[i + 1])} end
  -- Behind the last of these may be others, whose turn comes before a later one.
  turns.till = #turns == TURNS and turns[#turns][2]
  return turns
end
-- Put a group behind all whose turn is not later than its next one.
local function take_turn(turns, changed, weight)
  local turn = table.remove(turns, 1)
  turn[2] = turn[2] + 1 / weight
  changed[turn[1]] = turn[2]
  if turns.till and turn[2] > turns.till then return end
  local at = #turns
  while at > 0 and (turns[at][2] > turn[2] or (turns[at][2] == turn[2] and turns[at][1] > turn[1])) do at = at - 1 end
  table.insert(turns, at + 1, turn)
end
local function write_turns(k, changed, out)
  local list = {}
  for name, at in pairs(changed) do list[#list + 1], list[#list + 2] = string.format('%.17g', at), name end
  many('ZADD', k.ring, list)
  many('ZREM', k.ring, out)
  if served then redis.call('HSET', k.flow_state, 'served', string.format('%.17g', served)) end
end

local function wake_groups(k, now, most)
  local turns, changed, out, is_full = {}, {}, {}, false
  for _ = 1, most do
    if #turns == 0 then
      flow.flush_lines(k)
      write_turns(k, changed, out)
      turns, changed, out = turns_of(k), {}, {}
      if #turns == 0 then return true end
    end
    local name, at = turns[1][1], turns[1][2]
    local first = first_of(k, name, GROUP_AHEAD)
    local said = first and try(k, name, first, now)
    if said == 'in' then
      local limit = own_limit(first, name)
      served = at
      take_turn(turns, changed, limit and limit[3] or 1)
      is_full = limit and not flow.has_window(k)
    elseif not first or (type(said) == 'table' and flow.is_held_back(k, said)) then
      -- The next one's turn; a group that is held back has its own again when one of it ends, or it is resumed.
      table.remove(turns, 1)
      changed[name], out[#out + 1] = nil, name
    else
      is_full = type(said) == 'table'
    end
    if is_full then break end
  end
  write_turns(k, changed, out)
  return is_full
end

-- Let those in who have room now, first come first; the rest goes on at the promoter's next look.
-- So many places have become free, nil = not known; ten are looked at in any case, since not each has room elsewhere.
function flow.wake(k, line, now, places_free)
  local most, ahead = math.max(10, places_free or 50), math.min(AHEAD, places_free or 10)
  if line == WINDOW then
    if wake_groups(k, now, most) then return end
  elseif wake_line(k, line, now, most, ahead) then
    return
  end
  redis.call('ZADD', k.wake, 'LT', string.format('%.0f', now), line)
  redis.pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', '0')
end

-- Groups that one of theirs left take their turn again, where they had lost it.
local function turn_again(k, groups)
  local names = {}
  for name in pairs(groups) do
    if flow.waiting(k, name) > 0 then names[#names + 1] = name end
  end
  if #names == 0 then return end
  local scores = redis.call('ZMSCORE', k.ring, unpack(names))
  for i = 1, #names do
    if not scores[i] then redis.call('ZADD', k.ring, 'NX', virtual_time(k), names[i]) end
  end
end

-- Give back what messages have, and let the next ones in. On its way to due a message keeps its turn in a strict order, and
-- its limits. What is called for must have left its place already (I1).
function flow.free(k, ids, is_retry)
  local records, owned, ended, groups = flow.records(k, ids), {}, {}, {}
  local freed, names, seen = {}, {}, {}
  flow.foresee(k, records)
  local function give_back(name)
    held[name] = held[name] - 1
    if not freed[name] then
      names[#names + 1], freed[name] = name, 0
    end
    freed[name] = freed[name] + 1
  end
  for n = 1, #ids do
    local id, record = ids[n], not seen[ids[n]] and records[n]
    local limits, keeps = record and record[1] or NONE, ''
    seen[id] = true
    for i = 1, #limits do
      local kind, name = limits[i][1], limits[i][2]
      if kind == 'u' then
        owned[#owned + 1] = {name, id}
      elseif flow.has(record[3], kind) then
        if is_retry and kind == 'k' then
          keeps = '+'
        else
          give_back(name)
        end
        if kind == 'g' then
          give_back(WINDOW)
          groups[name] = true
        end
      end
    end
    if record and is_retry then
      flow.placed(id, record[2], keeps)
    elseif record then
      places[id], ended[#ended + 1] = nil, id
    end
  end
  if not is_retry then free_unique(k, owned) end
  many('HDEL', k.flow, ended)
  turn_again(k, groups)
  for i = 1, #names do
    local is_done = groups[names[i]] or (names[i] ~= WINDOW and waits[names[i]] == 0)
    if not is_done then flow.wake(k, names[i], flow.now(), freed[names[i]]) end
  end
end
