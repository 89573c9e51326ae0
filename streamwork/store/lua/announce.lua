-- Put events into the stream of a namespace, keep it bounded, and note what went.
-- include: note
-- KEYS  1 events · 2 events:trimmed
-- ARGV  1 most entries, roughly · 2 now ms · 3 why what goes goes · then per event: its token, its record
-- Returns  how many were new
-- Atomic because  the trim and its note must appear together, see note.lua; and an answer that was lost is asked for again,
-- which must not tell an event twice.
local call, told, new = redis.call, {}, 0
local rows = call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 200)
for i = 1, #rows do told[rows[i][2][4] or ''] = true end
for i = 4, #ARGV, 2 do
  if not told[ARGV[i]] then
    call('XADD', KEYS[1], '*', 'e', ARGV[i + 1], 't', ARGV[i])
    new = new + 1
  end
end
if call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[1]) > 0 then
  local first = call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
  note(KEYS[2], KEYS[1], 'events', first[1][1], ARGV[2], ARGV[3])
end
return new
