-- Free what a message owned; the one block that every script which ends a delivery includes (I2).
-- KEYS  none of its own: the including script passes a table `k` with moved, suspects, cancelled and kept, and those of
--       flow.lua where `k.has_flow`; with `ending` and `retrying` it gathers the ids there for one flow.free each.
-- ARGV  none of its own.
-- Returns  nothing.
-- Atomic because  the including script is; it has already seen its removal answer 1 (I1).
local function finish(k, id, place, was_moved, is_suspect, has_marks, is_kept, is_retry)
  if was_moved then redis.call('HDEL', k.moved, id) end
  if is_suspect then redis.call('HDEL', k.suspects, place) end
  if has_marks then redis.call('HDEL', k.cancelled, id) end
  if is_kept then redis.call('HDEL', k.kept, place) end
  if not k.has_flow then return end
  local ended = is_retry and k.retrying or k.ending
  if ended then ended[#ended + 1] = id else flow.free(k, {id}, is_retry) end
end
