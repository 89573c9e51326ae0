-- Say of deliveries with a rate that they start now, and set those aside that may not (rule 28).
-- include: flow+room+lines
-- KEYS  1 lane · 2 added · 3 control · 4 due · 5 due:body · 6 moved · 7 flow · 8 permits · 9 parked · 10 parked:body ·
--       11 turns · 12 rates · 13 starts · 14 wake · 15 flow:state · 16 unique · 17 paused · 18 settled · 19 suspects · 20 kept
-- ARGV  1 consumer · 2 lane name · then per delivery: id, entry, delivery count, attempt record, body
-- Returns  per delivery: 1 it may begin · 0 it waits in a line again · -1 another consumer has it
-- Atomic because  a token that was reserved when the message came onto its lane is spent when it starts: a crash in between
--                 leaves it reserved, and no span of time sees more starts than there are tokens.
-- Cost  O(deliveries × limits × log members). First write PERSIST, which changes nothing, so it works at maxmemory (rule 3).
local call = redis.call
local k = {
  added = KEYS[2], control = KEYS[3], due = KEYS[4], due_body = KEYS[5], moved = KEYS[6], flow = KEYS[7],
  permits = KEYS[8], parked = KEYS[9], parked_body = KEYS[10], turns = KEYS[11], rates = KEYS[12], starts = KEYS[13],
  wake = KEYS[14], flow_state = KEYS[15], unique = KEYS[16], paused = KEYS[17],
}
flow = open_flow()
local foreign = flow.foreign(k)
if foreign then error('BEGIN-TYPE ' .. foreign) end
call('PERSIST', KEYS[7])
local now, answers, ids, entries = flow.now(), {}, {}, {}
for a = 3, #ARGV, 5 do ids[#ids + 1], entries[#entries + 1] = ARGV[a], ARGV[a + 1] end

-- How often each entry was handed to this consumer. Deliveries of one read stand side by side, so one look finds them all.
local handed = {}
local function look(from, to, most)
  local found = redis.pcall('XPENDING', KEYS[1], 'workers', from, to, most, ARGV[1])
  for i = 1, found.err and 0 or #found do handed[found[i][1]] = found[i][4] end
end
look(entries[1], entries[#entries], 2 * #entries)
for i = 1, #entries do
  if not handed[entries[i]] then look(entries[i], entries[i], 1) end
end
local records = flow.records(k, ids)
flow.foresee(k, records)
for n = 1, #ids do
  local id, entry, a = ids[n], entries[n], 5 * n - 2
  if handed[entry] ~= tonumber(ARGV[a + 2]) then
    answers[#answers + 1] = -1
  else
    local limits = records[n] and records[n][1] or {}
    -- What started and crashed has spent its token: its next start asks for another one.
    local lacks = flow.admit(k, limits, now, records[n] and records[n][3] or '')
    if not lacks then
      flow.spend(k, id, limits, now)
      if records[n] then
        records[n][3] = ARGV[2] .. '/' .. entry .. '!'
        flow.placed(id, records[n][2], records[n][3])
      end
      answers[#answers + 1] = 1
    else
      call('XACK', KEYS[1], 'workers', entry)
      redis.pcall('HINCRBY', KEYS[18], ARGV[2], 1)
      -- What goes by its entry ends with that: its attempt record has the suspicion by now.
      redis.pcall('HDEL', KEYS[19], ARGV[2] .. '/' .. entry)
      redis.pcall('HDEL', KEYS[20], ARGV[2] .. '/' .. entry)
      call('HDEL', k.moved, id)
      flow.park(k, id, lacks, limits, {lane = ARGV[2], past = ARGV[a + 3], body = ARGV[a + 4]})
      flow.free(k, {id}, true)
      answers[#answers + 1] = 0
    end
  end
end
flow.flush(k)
return answers
