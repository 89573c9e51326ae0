-- Take records of history that were exported, at their own ids, into a stream that lives on for a while.
-- KEYS  1 imported
-- ARGV  1 its life ms · then per record: id · journal record · body, "" = none
-- Returns  {how many were taken, how many were there already}, {-1, which} where one is older than what is there, or has
--          no id (nothing was written)
-- Atomic because  a stream without a life would stay for ever, and a record must not be there twice.
-- Cost  O(records). The first pass only reads. First write XADD, so that maxmemory refuses it whole (rule 3).
local call = redis.call
local function numbers(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if not ms or #ms > 15 or #seq > 15 then return -1, -1 end
  return tonumber(ms), tonumber(seq)
end
local newest = call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local last_ms, last_seq = 0, 0
if newest[1] then last_ms, last_seq = numbers(newest[1][1]) end
local fresh = {}
for i = 2, #ARGV, 3 do
  local ms, seq = numbers(ARGV[i])
  if ms > last_ms or (ms == last_ms and seq > last_seq) then
    fresh[#fresh + 1] = i
    last_ms, last_seq = ms, seq
  elseif ms < 0 or #call('XRANGE', KEYS[1], ARGV[i], ARGV[i]) == 0 then
    return {-1, (i - 2) / 3}
  end
end
for _, i in ipairs(fresh) do call('XADD', KEYS[1], ARGV[i], 'j', ARGV[i + 1], 'd', ARGV[i + 2]) end
call('PEXPIRE', KEYS[1], ARGV[1])
return {#fresh, (#ARGV - 1) / 3 - #fresh}
