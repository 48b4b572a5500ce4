-- KEYS of the queue
-- ARGV worker, milliseconds, queue, how many, 1: nothing but keep it
local now, us = clock()
us = tonumber(us)
local who, left = holding(now)
if who ~= '' and who ~= ARGV[1] then return {'busy', us, left} end
writable()
redis.call('SET', worker, digits(now + tonumber(ARGV[2])) .. ':' .. ARGV[1])
if ARGV[5] == '1' then return {'held', us, 0, 0} end

local queue, most = ARGV[3], tonumber(ARGV[4])
mend(queue)
-- Failed changes get at most half of a claim. Otherwise they would delay the others for as long as
-- they fail.
local keys = redis.call('ZRANGEBYSCORE', retries, '-inf', digits(now), 'LIMIT', 0, most + 1)
local fresh = redis.call('ZRANGE', order, 0, most)
local more = #keys + #fresh > most and 1 or 0
for i = #keys, math.max(math.ceil(most / 2), most - #fresh) + 1, -1 do keys[i] = nil end
for i = 1, math.min(#fresh, most - #keys) do keys[#keys + 1] = fresh[i] end
local due, wait = redis.call('ZRANGEBYSCORE', retries, '(' .. digits(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1), 0
if due[2] then wait = math.max(1, tonumber(due[2]) - now) end

local reply, lost, garbled = {'held', us, more, wait}, {}, {}
-- A client could not read a longer reply within its timeout. The reply exceeds MOST by less than
-- one record. A part has as many records as fit if none is longer than those before.
local PART, MOST = 64, 8 * 1024 * 1024
local size, from, longest = 0, 1, MOST / 8
while from <= #keys and size < MOST do
  local n = math.max(1, math.min(PART, math.floor((MOST - size) / longest)))
  local part = {unpack(keys, from, math.min(from + n - 1, #keys))}
  if from == 1 then longest = 1 end
  for i, text in ipairs(texts(part)) do
    if size >= MOST then break end
    from = from + 1
    if text then longest = math.max(longest, #text) end
    local r = record(text)
    if r and r.queue == queue then
      reply[#reply + 1], reply[#reply + 2] = part[i], text
      size = size + #text
    else -- it is another queue's by now, or nothing
      lost[#lost + 1] = part[i]
      if text and not r then garbled[#garbled + 1] = part[i] end
    end
  end
end
if from <= #keys then reply[3] = 1 end
removed(order, lost)
removed(retries, lost)
if #garbled > 0 then redis.call('HDEL', records, unpack(garbled)) end
return reply
