-- Note what a trim has taken of a stream, for those who read its history; a block for scripts that trim.
-- KEYS  none of its own: the including script passes the hash of notes and the stream.
-- ARGV  none of its own.
-- Returns  nothing.
-- Atomic because  the including script is: a reader must not meet a hole that nobody has noted, and take what is left for
-- all there was.
-- What is noted under a field: the first id that may still be there, when the rest went, why.
local function note(trimmed, stream, field, cut, now, why)
  local place = string.find(cut, '-', 1, true) and cut or cut .. '-0'
  -- An approximate trim leaves a part of what it may take.
  local left = redis.call('XRANGE', stream, '-', '(' .. place, 'COUNT', 1)
  redis.pcall('HSET', trimmed, field, (left[1] and left[1][1] or place) .. ' ' .. now .. ' ' .. why)
end
