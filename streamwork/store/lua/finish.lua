-- Free what a message owned; the one block that every script which ends a delivery includes (I2).
-- KEYS  none of its own: the including script passes a table `k` with moved, suspects, cancelled and kept.
-- ARGV  none of its own.
-- Returns  nothing.
-- Atomic because  the including script is; it has already seen its removal answer 1 (I1).
local function finish(k, id, place, was_moved, is_suspect, has_marks, is_kept)
  if was_moved then redis.call('HDEL', k.moved, id) end
  if is_suspect then redis.call('HDEL', k.suspects, place) end
  if has_marks then redis.call('HDEL', k.cancelled, id) end
  if is_kept then redis.call('HDEL', k.kept, place) end
end
