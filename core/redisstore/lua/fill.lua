-- KEYS head, lease, entry
-- ARGV token, era, sweep, keep until, value, channel; then, if not both are empty, the id
-- that was seen, and the longest life, where the clock decides
local seen, longest, keep = ARGV[7] or '', ARGV[8] or '', ARGV[4]
local function wake() hint(ARGV[6], {'w', string.match(KEYS[2], '\31(.*)$') or ''}) end
if longest ~= '' then
  local now = clock()
  local until_ = math.min(tonumber(keep), now + tonumber(longest))
  keep = until_ > now and digits(until_)
end
local state = fields(redis.pcall('HMGET', KEYS[1], 'era', 'sweep')) -- no hash has neither
local storable = keep and ARGV[5] ~= '' and ARGV[2] ~= '' and state[1] == ARGV[2] and state[2] == ARGV[3]

-- Usually there is no entry. Then one command stores it, and one reads and ends the lease. If the
-- lease proves to be another caller's, both are undone, and no client sees the state between.
-- The entry comes first, since a full Redis refuses the first write of a script and no later one.
local set = storable and seen == '' and redis.pcall('SET', KEYS[3], ARGV[5], 'PXAT', keep, 'NX')
if set and not set.err then
  local held, waited = held_by(good(redis.pcall('GETDEL', KEYS[2])))
  if held == ARGV[1] then
    if waited then wake() end
    return 1
  end
  redis.call('UNLINK', KEYS[3])
  -- No term of a lease is longer.
  if held ~= '' then redis.call('SET', KEYS[2], waited and held .. '!' or held, 'PX', '3000') else wake() end
  return 0
end

local held, waited = holder(KEYS[2])
if held ~= ARGV[1] then
  -- A call whose reply was lost is executed again, and finds its own entry.
  if entry_id(KEYS[3]) == ARGV[1] and redis.call('GET', KEYS[3]) == ARGV[5] then return 1 end
  if held == '' then wake() end -- it has expired
  return 0
end
local stored, failed = 0, set and set.err and set
if storable and not failed then -- an entry of Learn is replaced only by a load that has seen it
  local there = entry_id(KEYS[3])
  if string.sub(there, 1, 1) ~= '+' or there == seen then
    local r = redis.pcall('SET', KEYS[3], ARGV[5], 'PXAT', keep)
    if r.err then failed = r else stored = 1 end
  end
end
redis.call('UNLINK', KEYS[2])
if waited then wake() end
return failed or stored
