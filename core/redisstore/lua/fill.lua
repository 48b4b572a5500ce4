-- KEYS head, lease, entry
-- ARGV token, era, sweep, keep until, not after (0: no limit), longest life, value, channel, key, id seen
local now = clock()
local held, waited = holder(KEYS[2])
if held ~= ARGV[1] then
  -- A call whose reply was lost is executed again: then this very entry is there.
  if entry_id(KEYS[3]) == ARGV[1] and redis.call('GET', KEYS[3]) == ARGV[7] then return {now, 1} end
  if held == '' then hint(ARGV[8], {'w', ARGV[9]}) end -- it has expired: wake the waiters
  return {now, 0}
end
local stored, failed = 0, nil
local there = entry_id(KEYS[3]) -- an entry of Learn is replaced only by a load that has seen it
local replaces = string.sub(there, 1, 1) ~= '+' or there == ARGV[10]
local state = good(redis.pcall('HMGET', KEYS[1], 'era', 'sweep')) -- no hash has neither
if replaces and ARGV[7] ~= '' and ARGV[2] ~= '' and state[1] == ARGV[2] and state[2] == ARGV[3] then
  local keep, limit = tonumber(ARGV[4]), tonumber(ARGV[5])
  if limit ~= 0 then keep = math.min(keep, limit) end
  keep = math.min(keep, now + tonumber(ARGV[6]))
  if keep > now then
    local r = redis.pcall('SET', KEYS[3], ARGV[7], 'PXAT', digits(keep))
    if r.err then failed = r else stored = 1 end
  end
end
redis.call('UNLINK', KEYS[2])
if waited then hint(ARGV[8], {'w', ARGV[9]}) end
return failed or {now, stored}
