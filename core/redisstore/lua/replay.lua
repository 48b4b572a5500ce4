-- KEYS of the queue; then those of change for one key
-- ARGV those of change, without items; then queue, id of the letter, key, 1: queue it again
local now, us = clock()
local count = tonumber(ARGV[11])
local at = 11 + count
local queue, id, key, again = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4] == '1'
local unknown = versions_of(KEYS[8], ARGV, 12, count, now, tonumber(ARGV[9]))
if #unknown > 0 then return {'versions', now, unpack(unknown)} end

local r = record(texts({key})[1])
local found = good(redis.pcall('XRANGE', letters, id, id))
local m = not found.err and found[1] and letter(found[1])
if not m or m.k ~= key then
  -- An earlier execution of this call has queued it.
  return {'done', now, again and r and r.by == ARGV[1] and 1 or 0}
end
local ok = 1
if again and r then
  ok = 0 -- what is queued is newer
elseif again then
  put(now, us, queue, math.huge, {{key = key, payload = m.p, lease = '', tag = '', keys = {unpack(KEYS, 10)}}},
    KEYS[8], KEYS[9], {unpack(ARGV, 1, at)})
end
writable()
redis.call('XDEL', letters, id)
if good(redis.pcall('HGET', index, key)) == id then redis.call('HDEL', index, key) end
return {'done', now, ok}
