-- KEYS of the queue; then for each change those of change for a key item and a tag item
-- ARGV those of change, without items; then queue, how many keys it may hold, until when
-- to do it (0: no limit), which of the versions is the caller's; then for each change
-- key, payload, lease or '', and tag or ''
local now, us = clock()
local count = tonumber(ARGV[11])
local at = 11 + count
local queue, limit, deadline, own = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
if deadline > 0 and now > deadline then return {'late', now} end
local head, log = KEYS[8], KEYS[9]
local unknown = versions_of(head, ARGV, 12, count, now, tonumber(ARGV[9]))
if #unknown > 0 then return {'versions', now, unpack(unknown)} end

local changes, k = {}, 10
for i = at + 5, #ARGV, 4 do
  local tag = ARGV[i + 3]
  changes[#changes + 1] = {
    key = ARGV[i], payload = ARGV[i + 1], lease = ARGV[i + 2], tag = tag,
    held = KEYS[k + count + own], keys = {unpack(KEYS, k, k + 2 * count + (tag == '' and 0 or 2))},
  }
  k = k + 2 * count + 3
end
local versions, changed = put(now, us, queue, limit, changes, head, log, {unpack(ARGV, 1, at)})
local reply, j = {'done', now}, 3
for i, version in ipairs(versions) do
  reply[#reply + 1] = version
  if version > 0 then
    for _ = 1, changes[i].tag == '' and 3 or 6 do
      reply[#reply + 1] = changed[j]
      j = j + 1
    end
  end
end
return reply
