-- Let a message whose entry the maintainer may have trimmed run again from its copy; a block for scripts that would
-- give the entry itself to somebody else (rule 31).
-- KEYS  none of its own: the including script passes a table `k` with kept, due, due_body, moved, suspects, settled and
--       control.
-- ARGV  none of its own.
-- Returns  false where there is no copy; "due" where the message is due now, and its entry not pending any more; "stays"
--          where something else stands under the keys of due: the entry stays with its owner.
-- Atomic because  the including script is; it has looked at the owner, and a copy is there only while nobody has settled.
-- An entry that is gone from its stream cannot be claimed: 7.0 drops it from the group, and with it the message.
local function unkeep(k, stream, lane, entry)
  local call, pcall = redis.call, redis.pcall
  local place = lane .. '/' .. entry
  local copy = pcall('HGET', k.kept, place)
  if type(copy) ~= 'string' then return false end
  local first = string.find(copy, '\n', 1, true)
  local second = first and string.find(copy, '\n', first + 1, true)
  if not second then  -- not ours
    call('HDEL', k.kept, place)
    return false
  end
  local due, body = call('TYPE', k.due).ok, call('TYPE', k.due_body).ok
  if (due ~= 'zset' and due ~= 'none') or (body ~= 'hash' and body ~= 'none') then return 'stays' end
  call('HDEL', k.kept, place)
  call('XACK', stream, 'workers', entry)
  local id, past = string.sub(copy, 1, first - 1), string.sub(copy, first + 1, second - 1)
  local message = string.sub(copy, second + 1)
  -- What it is suspected of goes by its entry, and that is another one from now on.
  local attempt, crashes, lost, rest = string.match(past, '^(%d+),(%d+),(%d+),(.*)$')
  local suspicion = pcall('HGET', k.suspects, place)
  local more_crashes, more_lost = string.match(type(suspicion) == 'string' and suspicion or '', '^(%d+),(%d+),')
  if attempt and more_crashes then
    past = string.format('%s,%d,%d,%s', attempt, crashes + more_crashes, lost + more_lost, rest)
  end
  if more_crashes then pcall('HDEL', k.suspects, place) end
  local now = call('TIME')[1] * 1000
  call('ZADD', k.due, now, id)
  call('HSET', k.due_body, id, lane .. '\n' .. past .. '\n' .. message)
  pcall('HDEL', k.moved, id)
  pcall('HINCRBY', k.settled, lane, 1)
  pcall('XADD', k.control, 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', now)
  return 'due'
end
