-- KEYS head, lease, entry
-- ARGV token, era, sweep, keep until, not after (0: no limit), longest life, value, channel, key, id seen
local now = clock()
local held, waited = holder(KEYS[2])
if held ~= ARGV[1] then
  -- A call whose reply was lost is executed again: then this very entry is there.
  if entry_id(KEYS[3]) == ARGV[1] and redis.call('GET', KEYS[3]) == ARGV[7] then return {now, 1} end
  if held == '' then hint(ARGV[8], {'w', ARGV[9]}) end -- it has vanished, and who waits with it
  return {now, 0}
end
local stored, failed = 0, nil
local there = entry_id(KEYS[3]) -- what was learnt is no load's to replace that has not seen it
if (string.sub(there, 1, 1) ~= '+' or there == ARGV[10]) and ARGV[7] ~= '' and ARGV[2] ~= '' and field(KEYS[1], 'era') == ARGV[2] and field(KEYS[1], 'sweep') == ARGV[3] then
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
