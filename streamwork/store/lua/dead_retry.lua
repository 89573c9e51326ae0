-- Let a dead letter run again as the same task message, in a new round (I1, I3).
-- include: flow+room+lines
-- KEYS  1 dead · 2 dead:body · 3 due · 4 due:body · 5 control · 6 result · 7 journal · 8 flow · 9 permits · 10 parked ·
--       11 parked:body · 12 turns · 13 rates · 14 starts · 15 wake · 16 flow:state · 17 unique · 18 paused · 19 moved · 20 added
-- ARGV  1 task id · 2 SHA-1 of the dead letter as it was seen · 3 lane, attempt record and body, as due has them ·
--       4 packed limits, "" = none · 5 journal record
-- Returns  "" it is due now · "gone" it is no dead letter any more · "changed" it is another one by now · "!id" that message
--          has the name which this one would have to itself
-- Atomic because  a message is either dead or due, and an outcome of the last round must not be seen beside the new one.
-- Cost  O(log dead + log due). First write ZREM, so that it works at maxmemory (rule 3). It asks for its limits where
-- all that becomes due does: when it is promoted.
local call, id = redis.call, ARGV[1]
local k = {
  due = KEYS[3], due_body = KEYS[4], control = KEYS[5], flow = KEYS[8], permits = KEYS[9], parked = KEYS[10],
  parked_body = KEYS[11], turns = KEYS[12], rates = KEYS[13], starts = KEYS[14], wake = KEYS[15], flow_state = KEYS[16],
  unique = KEYS[17], paused = KEYS[18], moved = KEYS[19], added = KEYS[20],
}
for n, kind in ipairs({'zset', 'hash', 'zset', 'hash'}) do
  local is = call('TYPE', KEYS[n]).ok
  if is ~= kind and is ~= 'none' then error('DEAD-TYPE ' .. KEYS[n] .. ' is a ' .. is) end
end
local letter = call('HGET', KEYS[2], id)
if not letter then return 'gone' end
if redis.sha1hex(letter) ~= ARGV[2] then return 'changed' end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local limits = {}
if ARGV[4] ~= '' then
  flow = open_flow()
  local foreign = flow.foreign(k)
  if foreign then error('DEAD-TYPE ' .. foreign) end
  limits = flow.unpacked(ARGV[4])
end
for i = 1, #limits do
  if limits[i][1] == 'u' then
    local owner, till = string.match(flow.owner(k, limits[i][2]) or '', '^(%x+) (%d+)$')
    local is_open = owner and owner ~= id
    if is_open and till == '0' then is_open = flow.is_known(k, owner) end
    if is_open and till ~= '0' then is_open = tonumber(till) > now end
    if is_open then return '!' .. owner end
  end
end
if call('ZREM', KEYS[1], id) ~= 1 then return 'gone' end
call('HDEL', KEYS[2], id)
call('ZADD', KEYS[3], string.format('%.0f', now), id)
call('HSET', KEYS[4], id, ARGV[3])
call('DEL', KEYS[6])
if flow then
  flow.placed(id, ARGV[4], '')
  for i = 1, #limits do
    if limits[i][1] == 'u' then flow.own(limits[i][2], id, limits[i][4] > 0 and now + limits[i][4] or 0) end
  end
  flow.flush(k)
end
redis.pcall('XADD', KEYS[7], '*', 'j', ARGV[5])
redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'e', 'due', 'v', string.format('%.0f', now))
return ''
