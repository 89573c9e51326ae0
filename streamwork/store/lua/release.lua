-- Give deliveries back in place, without counting an attempt (rule 15, P8).
-- include: unkeep
-- KEYS  1 lane · 2 returned · 3 control · 4 bell · 5 kept · 6 due · 7 due:body · 8 moved · 9 suspects · 10 settled
-- ARGV  1 consumer · 2 lane name · then per delivery: entry, delivery count
-- Returns  how many were given back; the others are not this consumer's any more
-- Atomic because  the owner check and the move must be one, or a zombie gives back what another one runs.
-- First write XCLAIM, so it works at maxmemory (rule 3).
local call = redis.call
local back = 0
local k = {
  kept = KEYS[5], due = KEYS[6], due_body = KEYS[7], moved = KEYS[8], suspects = KEYS[9], settled = KEYS[10],
  control = KEYS[3],
}
for i = 3, #ARGV, 2 do
  local p = redis.pcall('XPENDING', KEYS[1], 'workers', ARGV[i], ARGV[i], 1, ARGV[1])
  if not p.err and #p == 1 and p[1][4] == tonumber(ARGV[i + 1]) then
    local copy = unkeep(k, KEYS[1], ARGV[2], ARGV[i])
    if not copy then
      call('XCLAIM', KEYS[1], 'workers', 'returned', 0, ARGV[i], 'TIME', 1, 'JUSTID')
    end
    if copy ~= 'stays' then back = back + 1 end
  end
end
if back > 0 then
  -- They have moved: whatever else stands under the keys that only tell of it must not turn that into an error.
  redis.pcall('SADD', KEYS[2], ARGV[2])
  redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'e', 'returned', 'v', ARGV[2])
  if redis.pcall('LLEN', KEYS[4]) == 0 then redis.pcall('RPUSH', KEYS[4], '1') end
end
return back
