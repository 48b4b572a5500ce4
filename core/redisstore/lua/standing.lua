-- KEYS of the queue
-- ARGV the number of retried records whose first version is read
local _, us = clock()
local waiting = size(retries) or 0
local oldest, unseen = 0, math.max(0, waiting - tonumber(ARGV[1]))
local first = good(redis.pcall('ZRANGE', order, 0, 0, 'WITHSCORES'))
if first[2] then oldest = tonumber(first[2]) end
if waiting > 0 then
  for _, text in ipairs(texts(redis.call('ZRANGE', retries, 0, ARGV[1] - 1))) do
    local r = record(text)
    local since = r and tonumber(r.first)
    if since and (oldest == 0 or since < oldest) then oldest = since end
  end
end
local last = tonumber(texts({''})[1] or '')
if not (last and last >= 0 and last < 2 ^ 53) then last = 0 end
local dead = good(redis.pcall('XLEN', letters))
if type(dead) ~= 'number' then dead = 0 end
return {tonumber(us), (size(order) or 0) + waiting, waiting, dead, oldest, last, unseen}
