-- Block: refuse what would bring a queue above its limit; asked for only where there is one.
-- KEYS  the last three: parked:body · settled · due, with `added` given by name
-- ARGV  the last: most task messages in the backlog
-- Returns  nil where so many more fit, else error ENQUEUE-BACKLOG queue, backlog, limit
-- Atomic because  what is counted and what is then added must be one step, or two senders take the same room.
-- Cost  O(lanes): whatever waits or runs is added and not settled, what is scheduled is in due, and what waits for a limit
-- in parked:body. A unique message that would come to nothing counts, too: that it does is known only behind this.
-- An entry that is made by hand is not in added, and counts as one less once it is settled: never above what there is.
local function beyond(added, more)
  local there = redis.call('ZCARD', KEYS[#KEYS]) + redis.call('HLEN', KEYS[#KEYS - 2])
  for _, n in ipairs(redis.call('HVALS', added)) do there = there + n end
  for _, n in ipairs(redis.call('HVALS', KEYS[#KEYS - 1])) do there = there - n end
  local limit = tonumber(ARGV[#ARGV])
  if there + more <= limit then return nil end
  local queue = string.match(added, ':([^:{}]*)}')
  return redis.error_reply('ENQUEUE-BACKLOG ' .. queue .. ' ' .. math.max(0, there) .. ' ' .. limit)
end
