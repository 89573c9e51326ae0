-- Lines of messages that wait for a limit, who of them is next, and what an end gives back (rule 28). It goes on where
-- room.lua ends.
-- KEYS  those of flow.lua, in the table `k`.
-- ARGV  none of its own.
-- Returns  nothing: it adds to `flow`.
-- Atomic because  the including script is: who leaves a line has its permits and its place on a lane in the same step.
-- Cost  O(log members) for each that comes, waits or goes on; the first ones of a line are read together.
-- Bodies are: line, order there, lane, attempt record, message, a line of text each. The order is a level, the turn, the number
-- of the arrival and the message's own level. Groups that wait in one line take turns there by virtual time (start-time fair
-- queueing): one comes in at the turn of who is first, or 1 / weight behind the last one of its group. So the
-- first of a group waits for about one turn of each other group, however long theirs are.
-- What flow.flush_lines writes: into lines and out of them, places of those that went on, how many went to which lane; and the
-- lines that this concerns.
local joined, bodies, left, left_bodies, moves, adds, touched = {}, {}, {}, {}, {}, {}, {}
-- The first ones of a line, read ahead; {last arrival given, last that is ours}; by line, level and group how many wait and
-- the turn of the last one; the first turn of a line.
local fronts, arrivals, turns, heads = {}, {0, 0}, {}, {}
local AHEAD, TURN, LAST, NO_LIMITS = 50, 1000, 999999999999999, cmsgpack.pack({})
-- After so many that go from one line to another a look pauses so long, us: a limit that has room while all lack another one
-- would have its line moved at once, and moved back.
local PAUSE = 20000

-- Read and note how many of a group wait in a line, and the turn of the last.
local function turn_of(k, name, class, group)
  local field = name .. NUL .. class .. NUL .. group
  if not turns[field] then
    local n, last = string.match(redis.call('HGET', k.turns, field) or '', '^(%d+) (%d+)$')
    turns[field] = {tonumber(n) or 0, tonumber(last) or 0}
  end
  return turns[field]
end
local function flush_turns(k)
  local changed, gone = {}, {}
  for field, turn in pairs(turns) do
    if turn.has_changed and turn[1] > 0 then
      changed[#changed + 1], changed[#changed + 2] = field, string.format('%d %.0f', turn[1], turn[2])
    elseif turn.has_changed then
      gone[#gone + 1] = field
    end
    turn.has_changed = nil
  end
  spread('HSET', k.turns, changed)
  many('HDEL', k.turns, gone)
end

function flow.flush_lines(k)
  many('ZREM', k.parked, left)
  many('HDEL', k.parked_body, left_bodies)
  spread('ZADD', k.parked, joined)
  many('HSET', k.parked_body, bodies)
  flush_turns(k)
  spread('HSET', k.moved, moves)
  for lane, n in pairs(adds) do
    redis.pcall('HINCRBY', k.added, lane, n)
    if redis.pcall('LLEN', k.bells[lane]) == 0 then redis.pcall('RPUSH', k.bells[lane], '1') end
  end
  joined, bodies, left, left_bodies, moves, adds, touched = {}, {}, {}, {}, {}, {}, {}
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

-- The group among these limits, '' = none, and its weight.
local function group_of(limits)
  for i = 1, #limits do if limits[i][1] == 'g' then return limits[i][2], limits[i][3] end end
  return '', 1
end
-- The turn of the first one of a line, of this level where that goes first.
local function head_of(k, name, level)
  local line = name .. NUL .. level
  if not heads[line] then
    flow.settle_line(k, name)
    local first = redis.call('ZRANGEBYLEX', k.parked, '[' .. line, '(' .. line .. ':', 'LIMIT', 0, 1)[1]
    heads[line] = first and tonumber(string.sub(first, #line + 1, #line + 15)) or 0
  end
  return heads[line]
end
-- Where a message comes into a line. Strict order and a group's own line go by arrival alone. In the window every level of a
-- group has turns of its own, so that none of them can wait for ever; elsewhere higher levels go first.
local function order_of(k, limit, limits, place)
  local kind, name, turn = limit[1], limit[2], 0
  local class = 9 - (tonumber(string.sub(place.lane, 1, 1)) or 0)
  local level = (kind == 'k' or kind == 'v') and 0 or class
  if kind ~= 'k' and kind ~= 'g' then
    local group, weight = group_of(limits)
    local last = turn_of(k, name, class, group)
    local head = head_of(k, name, level)
    local step = math.max(1, math.floor(TURN / weight))
    -- Those of its group that were cancelled have taken no turn.
    turn = last[1] > 0 and math.min(LAST, math.max(head, math.min(last[2], head + (last[1] - 1) * step) + step)) or head
    last[1], last[2], last.has_changed = last[1] + 1, turn, true
  end
  return level .. string.format('%015.0f%015.0f', turn, place.arrival or next_arrival(k)) .. class
end
-- Count one less of a group in a line.
local function give_turn(k, name, order, limits)
  local kind = string.sub(name, 1, 1)
  if kind == 'k' or kind == 'g' then return end
  local last = turn_of(k, name, string.sub(order, 32), (group_of(limits)))
  last[1], last.has_changed = math.max(0, last[1] - 1), true
end

-- Let a message with these limits wait in the line of one of them.
function flow.park(k, id, limit, limits, place)
  local name = limit[2]
  local order = order_of(k, limit, limits, place)
  joined[#joined + 1], joined[#joined + 2] = '0', name .. NUL .. order .. NUL .. id
  bodies[#bodies + 1] = id
  bodies[#bodies + 1] = name .. '\n' .. order .. '\n' .. place.lane .. '\n' .. place.past .. '\n' .. place.body
  flow.line_changed(k, name, 1)
  touched[name], fronts[name] = true, nil
  if limit[1] == 't' or limit[1] == 'w' then flow.look_again(limit) end
end
local function place_of(record)
  local a = type(record) == 'string' and string.find(record, '\n', 1, true)
  local b = a and string.find(record, '\n', a + 1, true)
  local c = b and string.find(record, '\n', b + 1, true)
  local d = c and string.find(record, '\n', c + 1, true)
  local order = d and string.sub(record, a + 1, b - 1)
  if not order or #order ~= 32 or not string.find(order, '^%d+$') then return nil end
  return {
    name = string.sub(record, 1, a - 1), order = order, lane = string.sub(record, b + 1, c - 1),
    past = string.sub(record, c + 1, d - 1), body = string.sub(record, d + 1), arrival = tonumber(string.sub(order, 17, 31)),
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
  local record = flow.records(k, {id})[1]
  if record then give_turn(k, place.name, place.order, record[1]) end
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
    for i = 1, #members do ids[i] = string.sub(members[i], #name + 35) end
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
  if first.place then heads[name .. NUL .. string.sub(first.place.order, 1, 1)] = nil end
  left[#left + 1] = first.member
  if not keeps_body then left_bodies[#left_bodies + 1] = first.id end
  touched[name] = true
  flow.line_changed(k, name, -1)
  if first.record and first.place then give_turn(k, name, first.place.order, first.record[1]) end
end

-- Ask for the first one of a line; answers what came of it: "gone", "in", "elsewhere", or the limit that lacks room.
local function try(k, name, first, now)
  local record, place = first.record, first.place
  if not place or place.name ~= name then
    step_out(k, name, first, true)  -- not ours
    return 'gone'
  elseif not record then
    -- Removed by hand: what it asked for is not known, and it must run all the same.
    step_out(k, name, first)
    put(k, first.id, place, NO_LIMITS)
    return 'in'
  end
  local lacks, keeps = flow.admit(k, record[1], now, record[3], name)
  if lacks and lacks[2] == name then return lacks end
  step_out(k, name, first, lacks)
  if lacks then
    flow.park(k, first.id, lacks, record[1], place)
    flow.placed(first.id, record[2], keeps)
    return 'elsewhere'
  end
  put(k, first.id, place, record[2])
  return 'in'
end
local function own_limit(first, name)
  for i = 1, first.record and #first.record[1] or 0 do if first.record[1][i][2] == name then return first.record[1][i] end end
end

-- Answers when there is more to do here, nil = it was done; `most` is how many it looks at.
local function wake_line(k, name, now, most, ahead)
  local has_moved = false
  for _ = 1, most do
    local first = first_of(k, name, ahead)
    if not first then return nil end
    local said = try(k, name, first, now)
    has_moved = has_moved or said == 'elsewhere'
    local limit = type(said) == 'table' and said or (said == 'in' and own_limit(first, name))
    -- That the next one has room, or when it has, depends on numbers of its own: nearly always those of this one.
    if limit and (said ~= 'in' or not flow.room(k, limit, now)) then
      if limit[1] == 't' or limit[1] == 'w' then flow.look_again(limit) end
      return nil
    end
  end
  return has_moved and now + PAUSE or now
end

-- Let those in who have room now, first come first; the rest goes on at the promoter's next look.
-- So many places have become free, nil = not known; ten are looked at in any case, since not each has room elsewhere.
function flow.wake(k, line, now, places_free)
  local most, ahead = math.max(10, places_free or 50), math.min(AHEAD, places_free or 10)
  local at = wake_line(k, line, now, most, ahead)
  if not at then return end
  redis.call('ZADD', k.wake, 'LT', string.format('%.0f', at), line)
  redis.pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', string.format('%.0f', at / 1000))
end

-- Give back what messages have, and let the next ones in. On its way to due a message keeps its turn in a strict order, and
-- its limits. What is called for must have left its place already (I1).
function flow.free(k, ids, is_retry)
  local records, owned, ended = flow.records(k, ids), {}, {}
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
  for i = 1, #names do
    if waits[names[i]] > 0 then flow.wake(k, names[i], flow.now(), freed[names[i]]) end
  end
end
