-- Add, change, pause, resume or remove a schedule (rule 27).
-- KEYS  1 schedules · 2 schedules:marks · 3 control
-- ARGV  1 schedule · 2 declare, add, replace, pause, resume or remove · 3 record (declare, add, replace)
-- Returns  "done" · "same" (nothing to do) · "there" (add, and there is one) · "declared" (add, replace: it
--          stands in code) · "none" (pause, resume, remove)
-- Atomic because  a record without its watermark would fire all that ever was, and one beside another's mark the wrong.
-- Cost  O(1). The first write is an HSET, which maxmemory refuses whole; remove begins with HDEL (rule 3).
-- A new schedule begins now; one that is declared anew, or replaced, goes on from its watermark; one that is resumed goes
-- on from now, so that what fell into the pause does not happen.
local call, name, mode = redis.call, ARGV[1], ARGV[2]
local record = call('HGET', KEYS[1], name)
local mark, state = string.match(call('HGET', KEYS[2], name) or '', '^(%d+) ([p-])$')
local t = call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
if mode == 'remove' then
  if not record then return 'none' end
  call('HDEL', KEYS[1], name)
  call('HDEL', KEYS[2], name)
elseif mode == 'pause' or mode == 'resume' then
  if not record then return 'none' end
  if mark and (state == 'p') == (mode == 'pause') then return 'same' end
  call('HSET', KEYS[2], name, mode == 'pause' and (mark or now) .. ' p' or now .. ' -')
else
  if record == ARGV[3] and (mark or mode == 'add') then return 'same' end
  if record and mode ~= 'declare' then
    -- Workers of that code would fire neither theirs, which is gone, nor this one, which is not theirs.
    -- As msgpack writes that field; Redis' own reader does not know the type of the arguments.
    if string.find(record, '\171is_declared\195', 1, true) then return 'declared' end
    if mode == 'add' then return 'there' end
  end
  call('HSET', KEYS[1], name, ARGV[3])
  if not mark then call('HSET', KEYS[2], name, now .. ' -') end
end
redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'e', 'schedules', 'v', name)
return 'done'
