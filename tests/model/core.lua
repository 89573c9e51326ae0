-- The frame of the model: keys with a life, calls from scripts as Redis makes them, replies as RESP.
-- One server at a time; `M.reset` begins another one. Commands take the request as a table of texts and return what a
-- script would get: a number, a text, false, {ok = …} or a list; an error is raised as {err = …}.
local M = ...
local db
M.commands, M.scripts, M.writes = {}, {}, {}

function M.reset(version, now)
  db = {}
  M.db, M.version, M.now, M.clients, M.is_dirty, M.exact_trim = db, version, now, {}, false, false
  M.is_full = false
  M.woken = nil
end

function M.fail(text) error({err = text}, 0) end
local WRONG = 'WRONGTYPE Operation against a key holding the wrong kind of value'

-- Answers the key's record, or nil where it is not, or not any more.
function M.get(key, kind)
  local found = db[key]
  if not found then return nil end
  if found.ex and M.now > found.ex then
    db[key] = nil
    return nil
  end
  if kind and found.t ~= kind then M.fail(WRONG) end
  return found
end

function M.make(key, kind, value)
  local made = {t = kind, v = value}
  db[key] = made
  return made
end

function M.whole(text)
  local n = tonumber(text)
  if not n or n ~= math.floor(n) then M.fail('ERR value is not an integer or out of range') end
  return n
end

-- Texts in the order in which they came: what Redis does with few, and what makes a schedule repeat itself.
function M.ordered() return {names = {}, of = {}, n = 0} end
function M.put(o, name, value)
  local is_new = o.of[name] == nil
  if is_new then
    o.n = o.n + 1
    o.names[o.n] = name
  end
  o.of[name] = value
  return is_new
end
function M.drop(o, name)
  if o.of[name] == nil then return false end
  o.of[name] = nil
  for i = 1, o.n do
    if o.names[i] == name then table.remove(o.names, i) break end
  end
  o.n = o.n - 1
  return true
end

local format, type, tostring = string.format, type, tostring
local function resp(v)
  local kind = type(v)
  if kind == 'string' then return '$' .. #v .. '\r\n' .. v .. '\r\n' end
  if kind == 'number' then return format(':%.0f\r\n', v < 0 and math.ceil(v) or math.floor(v)) end
  if kind == 'boolean' then return v and ':1\r\n' or '$-1\r\n' end
  if kind == 'nil' then return '$-1\r\n' end
  if v.err then return '-' .. v.err:gsub('[\r\n]', ' ') .. '\r\n' end
  if v.ok then return '+' .. v.ok .. '\r\n' end
  local out = {'*' .. #v .. '\r\n'}
  for i = 1, #v do out[i + 1] = resp(v[i]) end
  return table.concat(out)
end

local commands, writes = M.commands, M.writes
local function dispatch(args)
  local name = args[1]
  local command = commands[name]
  if not command then M.fail("ERR unknown command '" .. tostring(name) .. "', of which this model knows nothing") end
  if writes[name] then M.is_dirty = true end
  return command(args)
end

local function texts(...)
  local args = {...}
  for i = 1, #args do
    if type(args[i]) == 'number' then args[i] = format('%.17g', args[i]) end
  end
  return args
end

local redis = {}
function redis.call(...) return dispatch(texts(...)) end
function redis.pcall(...)
  local fine, answer = pcall(dispatch, texts(...))
  if not fine and type(answer) ~= 'table' then error(answer, 0) end  -- a mistake of the model itself
  return answer
end
function redis.error_reply(text) return {err = text} end
function redis.status_reply(text) return {ok = text} end
-- Only compared with itself.
function redis.sha1hex(text) return format('%08x', #text) .. (text:gsub('[^%w]', '.')) end
local sandbox = {
  cmsgpack = {unpack = function(text) return M.unpack(text) end},
  redis = redis, tonumber = tonumber, tostring = tostring, string = string, table = table, math = math, pairs = pairs,
  ipairs = ipairs, next = next, type = type, error = error, pcall = pcall, unpack = unpack, select = select,
}

function M.load(sha, source)
  local script, wrong = loadstring(source, '@user_script')
  if not script then error(wrong) end
  M.scripts[sha] = setfenv(script, sandbox)
end

local function evalsha(args)
  local script = M.scripts[args[2]]
  if not script then M.fail('NOSCRIPT No matching script. Please use EVAL.') end
  local count = tonumber(args[3])
  local keys, argv = {}, {}
  for i = 1, count do keys[i] = args[3 + i] end
  for i = 4 + count, #args do argv[i - 3 - count] = args[i] end
  sandbox.KEYS, sandbox.ARGV = keys, argv
  M.keys, M.argv = keys, argv
  local fine, answer = pcall(script)
  M.keys = nil
  if fine then return answer end
  if type(answer) == 'table' then return answer end
  return {err = 'ERR ' .. answer .. ' script: ' .. args[2] .. ', on @user_script'}
end
commands.EVALSHA = evalsha

-- Answers the reply as RESP, and what is wrong with the world after it (see ghost.lua), or nil.
function M.execute(now, ...)
  M.now, M.is_dirty = now, false
  local fine, answer = pcall(dispatch, {...})
  if not fine and type(answer) ~= 'table' then answer = {err = 'MODEL ' .. tostring(answer)} end
  return resp(answer), M.is_dirty and M.check and M.check() or nil
end
