-- KEYS head, entry, lease, intents on the name, records of queues
-- ARGV nonce, id seen, milliseconds, version, after how long a version is noted again, key
local now, us = clock()
local id = entry_id(KEYS[2])
if id ~= '' and id ~= ARGV[2] then
  return {'found', now, redis.call('GET', KEYS[2]), id}
end
local held, waited = holder(KEYS[3])
if held ~= '' then
  local left = redis.call('PTTL', KEYS[3])
  if left > 0 then
    if not waited then redis.pcall('APPEND', KEYS[3], '!') end
    return {'busy', now, left, field(KEYS[5], ARGV[6])}
  end
end
-- An invalidation must know this version before the first entry under it.
local noted = tonumber(field(KEYS[1], 'v:' .. ARGV[4]))
if not noted or now - noted > tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[1], 'v:' .. ARGV[4], digits(now))
end
local open, lapsed, lagging = intents(KEYS[4], KEYS[1], now)
local lease = token(KEYS[1], ARGV[1], us)
redis.call('SET', KEYS[3], lease, 'PX', ARGV[3])
return {'lease', now, lease, field(KEYS[1], 'era'), field(KEYS[1], 'sweep'), open, lagging, lapsed,
  field(KEYS[1], 'ptok'), field(KEYS[5], ARGV[6])}
