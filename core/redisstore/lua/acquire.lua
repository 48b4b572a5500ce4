-- One script reads everything on which a lease depends, and takes the lease. Without a lease
-- (milliseconds: '') it only captures generations: in a cluster, those of another partition than
-- the key's.
-- KEYS head, entry, lease, generation of each tag; intents on the name, intents on each tag,
-- records of queues; heads of further partitions that have some of the tags
-- ARGV nonce, id seen, milliseconds, version, how many tags; where they are of several
-- partitions, the number of the head of each, as it is in KEYS beyond the records
local now, us = clock()
local seen, n = ARGV[2], tonumber(ARGV[5])
local of_name = 4 + n -- then of the tags, and records
local records = of_name + n + 1

-- EXISTS tells in one command whether a cold key has anything to read. It does not name the entry
-- if the caller has seen one, since the entry may be long and is not needed.
local from = seen == '' and 2 or 3
local there = redis.call('EXISTS', unpack(KEYS, from, records))
local values = {}
if there > 0 then
  values = redis.call('MGET', unpack(KEYS, from, of_name - 1))
  for i = 1, of_name - from do
    if values[i] then there = there - 1 end
  end
end
local touched = there > 0 -- there are intents or records, or something of another type

local head = fields(redis.pcall('HMGET', KEYS[1], 'era', 'sweep', 'ptok', 'lag', 'v:' .. ARGV[4], 'vn'))
local lag = tonumber(head[4] or '') or 0
local lags, heads = {[0] = lag}, {}
for i = records + 1, #KEYS do
  local h = fields(redis.pcall('HMGET', KEYS[i], 'era', 'ptok', 'lag'))
  local until_ = tonumber(h[3] or '') or 0
  lags[i - records] = until_
  heads[#heads + 1], heads[#heads + 2], heads[#heads + 3] = h[1] or '', h[2] or '', until_ > now and 1 or 0
end

-- Intents on the tags that have any: number of the tag, milliseconds, whether a replica may lag.
local open, marks = {}, {}
for i = 1, touched and n or 0 do
  local lasting, _, lagging = intents(KEYS[of_name + i], lags[tonumber(ARGV[5 + i] or 0)], now)
  if lasting > 0 or lagging > 0 then
    open[i] = lasting
    marks[#marks + 1], marks[#marks + 2], marks[#marks + 3] = i, lasting, lagging
  end
end
local function queued()
  return touched and field(KEYS[records], string.match(KEYS[3], '\31(.*)$') or '') or ''
end

-- base is the end of every reply: the states of the heads, and the tokens.
local base
local function state(reply, capturing)
  local k = #reply
  reply[k + 1], reply[k + 2], reply[k + 3], reply[k + 4] = head[1] or '', head[2] or '', head[3] or '', lag > now and 1 or 0
  reply[k + 5], reply[k + 6] = heads, marks
  for i = 1, n do
    local v = values[i + 4 - from]
    if v == '' then v = nil end
    if capturing then
      local made
      if not v then
        base = base or token(KEYS[1], ARGV[1], us)
        made = 'g' .. (i < 75 and string.char(48 + i) or i) .. base
      end
      v = capture(v, KEYS[3 + i], KEYS[of_name + i], open[i] or 0, made, now)
    end
    reply[k + 6 + i] = v or ''
  end
  return reply
end

if ARGV[3] == '' then return state({'captured', now}, true) end

local entry = values[1]
local id
if seen == '' then id = id_of(entry) else id = entry_id(KEYS[2]) end
if id ~= '' and id ~= seen then
  return state({'found', now, seen == '' and entry or redis.call('GET', KEYS[2]), id}, false)
end
local held, waited = held_by(values[4 - from])
if held ~= '' then
  local left = redis.call('PTTL', KEYS[3])
  if left > 0 then
    if not waited then redis.pcall('APPEND', KEYS[3], '!') end
    return {'busy', now, left, queued()}
  end
end
local lasting, lapsed, lagging = 0, 0, lag > now and 1 or 0
if touched then lasting, lapsed, lagging = intents(KEYS[of_name], lag, now) end
local change = queued() -- all is read before the first write: a refusal leaves no lease
-- An invalidation must know this version before the first entry under it. The version is noted
-- again after an hour.
local noted = tonumber(head[5] or '')
if not noted or now - noted > 3600000 then
  if head[6] and not noted then redis.call('HINCRBY', KEYS[1], 'vn', 1) end -- see versions.lua
  redis.call('HSET', KEYS[1], 'v:' .. ARGV[4], digits(now))
end
base = token(KEYS[1], ARGV[1], us)
redis.call('SET', KEYS[3], base, 'PX', ARGV[3])
return state({'lease', now, base, lasting, lagging, lapsed, change}, true)
