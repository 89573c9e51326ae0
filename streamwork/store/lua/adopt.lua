-- Take over marked entries of one lane (rule 16).
-- include: unkeep
-- KEYS  1 lane · 2 returned · 3 suspects · 4 settled · 5 kept · 6 due · 7 due:body · 8 moved · 9 control
-- ARGV  1 consumer · 2 lane name · 3 most entries (free slots) · 4 from: "returned", or the consumer itself for its audit
--       (rule 18) with the entries in question behind, each with its delivery count
-- Returns  list of {entry, fields or nil where the entry is gone from the stream, delivery count, suspicion or nil}
-- Atomic because  the owner check and the claim must be one, or two consumers adopt one entry.
-- Entries marked `returned` are listed by owner, so a live owner's are never looked at, however long they run.
local call = redis.call
local me, lane, from = ARGV[1], ARGV[2], ARGV[4]
local found = {}
local k = {
  kept = KEYS[5], due = KEYS[6], due_body = KEYS[7], moved = KEYS[8], suspects = KEYS[3], settled = KEYS[4],
  control = KEYS[9],
}
if from == 'returned' then
  found = redis.pcall('XPENDING', KEYS[1], 'workers', '-', '+', ARGV[3], from)
  if found.err then found = {} end
else
  for i = 5, #ARGV, 2 do
    local p = call('XPENDING', KEYS[1], 'workers', ARGV[i], ARGV[i], 1, from)
    -- Another count means that it was found meanwhile, by the reader's own look, and runs.
    if #p == 1 and p[1][4] == tonumber(ARGV[i + 1]) then found[#found + 1] = p[1] end
  end
end
local out = {}
local function take_up(entry, delivered)
  local claimed = call('XCLAIM', KEYS[1], 'workers', me, 0, entry)
  -- 6.2 answers a trimmed entry with null and keeps it pending; 7.0 drops it from the list: acknowledge it for both.
  local fields = claimed[1] and claimed[1][2]
  local suspicion = redis.pcall('HGET', KEYS[3], lane .. '/' .. entry)
  if type(suspicion) ~= 'string' then suspicion = false end
  if not fields then
    call('XACK', KEYS[1], 'workers', entry)
    redis.pcall('HDEL', KEYS[3], lane .. '/' .. entry)
    redis.pcall('HINCRBY', KEYS[4], lane, 1)
  end
  out[#out + 1] = {entry, fields or false, delivered + 1, suspicion}
end
local stays = false
for i = 1, #found do
  local copy = unkeep(k, KEYS[1], lane, found[i][1])
  if not copy then take_up(found[i][1], found[i][4]) end
  stays = stays or copy == 'stays'
end
-- What stays is looked at again as soon as it can be moved: nobody else would mark its lane.
if from == 'returned' and #found < tonumber(ARGV[3]) and not stays then redis.pcall('SREM', KEYS[2], lane) end
return out
