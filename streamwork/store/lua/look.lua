-- Read several things of one queue at one instant.
-- KEYS  what is read
-- ARGV  per command: how many words · its words
-- Returns  the answers in order; an error where Redis refuses one
-- Atomic because  counts of one moment add up, and those of several do not.
-- A MULTI would do the same, and is refused at maxmemory with all that is in it, when a look is needed most.
local answers, at = {}, 1
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  local answer = redis.pcall(unpack(ARGV, at + 1, at + words))
  answers[#answers + 1] = answer
  at = at + 1 + words
end
return answers
