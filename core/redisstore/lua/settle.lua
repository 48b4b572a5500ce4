-- KEYS of the queue
-- ARGV nonce, worker, queue, 1: release the queue, the maximum number of dead letters; then for
-- each record key, version, milliseconds until the next attempt or 0, reason of death or ''
local now = clock()
local nonce, queue = ARGV[1], ARGV[3]
local held = holding(now) == ARGV[2]
local keys = {}
for i = 6, #ARGV, 4 do keys[#keys + 1] = ARGV[i] end
local found = texts(keys)
local reply = {now, held and 1 or 0}
if held then writable() end
local gone = {}
for i, key in ipairs(keys) do
  local at = 6 + 4 * (i - 1)
  local version, wait, why = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local r = record(found[i])
  local newer = r and r.version ~= version
  reply[#reply + 1] = newer and 1 or 0
  if held and r and r.queue == queue then
    if newer then
      -- A change after the applied version is queued: that of the record, or one that the record
      -- has replaced.
      if wait == '0' and why == '' then
        local first = digits(math.min(tonumber(version) + 1, tonumber(r.version)))
        good(redis.pcall('ZADD', order, 'XX', first, key))
        redis.call('HSET', records, key,
          r.version .. ':' .. first .. rest(r.attempts, r.by, queue) .. string.sub(r.text, r.at))
      end
    elseif why ~= '' then
      bury(key, r, why, tonumber(ARGV[5]))
      gone[#gone + 1] = key
    elseif wait == '0' then
      gone[#gone + 1] = key
    elseif r.by ~= nonce then -- else this call, executed once more
      good(redis.pcall('ZADD', retries, digits(now + tonumber(wait)), key))
      redis.call('HSET', records, key,
        r.version .. ':' .. r.first .. rest(r.attempts + 1, nonce, queue) .. string.sub(r.text, r.at))
      removed(order, {key})
    end
  end
end
if #gone > 0 then
  redis.call('HDEL', records, unpack(gone))
  removed(order, gone)
  removed(retries, gone)
end
if held and ARGV[4] == '1' then redis.call('UNLINK', worker) end
return reply
