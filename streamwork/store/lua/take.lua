-- Mark a dead consumer's entries of one lane for adoption, in place (rules 15, 17).
-- include: unkeep
-- KEYS  1 lane · 2 returned · 3 control · 4 bell · 5 grace · 6 alive · 7 consumers · 8 suspects · 9 kept · 10 due ·
--       11 due:body · 12 moved · 13 settled · 14 pulse
-- ARGV  1 consumer · 2 lane name · 3 most entries · 4 mode: reap (checked here), dead (its own supervisor says so) or
--       leave (it stopped in order) · 5 evidence · then the entries it had started, for mode dead
-- Returns  entries marked (call again while it answers the most), -1 in grace or without a pulse, -2 it is alive
-- Atomic because  the owner check and the move must be one, or a live owner loses an entry.
-- Cost  O(entries). First write HDEL, so it works at maxmemory (rule 3).
local call = redis.call
local consumer, lane, mode = ARGV[1], ARGV[2], ARGV[4]
local k = {
  kept = KEYS[9], due = KEYS[10], due_body = KEYS[11], moved = KEYS[12], suspects = KEYS[8], settled = KEYS[13],
  control = KEYS[3],
}
if mode == 'reap' then
  if call('EXISTS', KEYS[5]) == 1 then return -1 end
  if call('EXISTS', KEYS[6]) == 1 then return -2 end
  -- A stall or a step of the clock since the reaper renewed its pulse has ended the lives of all, and no look has
  -- given grace yet. The pulse is shorter than what is left of a life that is being renewed, so it is gone too.
  if call('EXISTS', KEYS[14]) == 0 then return -1 end
end
redis.pcall('HDEL', KEYS[7], consumer)
call('DEL', KEYS[6])
local started = {}
for i = 6, #ARGV do started[ARGV[i]] = true end
local found = redis.pcall('XPENDING', KEYS[1], 'workers', '-', '+', ARGV[3], consumer)
if found.err then return 0 end
local moved = 0
for i = 1, #found do
  local entry = found[i][1]
  local blamed = mode == 'dead' and started[entry]
  if blamed or mode == 'reap' then
    local place = lane .. '/' .. entry
    -- Whatever else stands there counts as nothing: an error here would leave the rest with the dead.
    local known = redis.pcall('HGET', KEYS[8], place)
    local crashes, lost = string.match(type(known) == 'string' and known or '', '^(%d%d?%d?%d?%d?%d?),(%d%d?%d?%d?%d?%d?),')
    crashes, lost = crashes or 0, lost or 0
    if blamed then crashes = crashes + 1 else lost = lost + 1 end
    redis.pcall('HSET', KEYS[8], place, string.format('%d,%d,%s', crashes, lost, ARGV[5]))
  end
  local copy = unkeep(k, KEYS[1], lane, entry)
  if copy ~= 'stays' then moved = moved + 1 end
  if not copy then
    local claimed = call('XCLAIM', KEYS[1], 'workers', 'returned', 0, entry, 'TIME', 1, 'JUSTID')
    -- 7.0 drops an entry here that is gone from the stream: nobody will settle it and free this.
    if #claimed == 0 then redis.pcall('HDEL', KEYS[8], lane .. '/' .. entry) end
  end
end
if #found > 0 then
  -- They have moved: whatever else stands under the keys that only tell of it must not turn that into an error.
  redis.pcall('SADD', KEYS[2], lane)
  redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'e', 'returned', 'v', lane)
  if redis.pcall('LLEN', KEYS[4]) == 0 then redis.pcall('RPUSH', KEYS[4], '1') end
end
return moved
