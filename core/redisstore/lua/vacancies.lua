-- KEYS records of each partition; then of all keys their entries, leases, and the generations of
-- their tags
-- ARGV number of partitions; for each the number of its keys
local _, us = clock()
local parts = tonumber(ARGV[1])
local n = (#KEYS - parts) / 3
local taken, found, there = {}, {}, {}
local last = parts
for p = 1, parts do
  local from = last + 1
  last = last + tonumber(ARGV[p + 1])
  if redis.call('EXISTS', KEYS[p]) > 0 then
    for i = from, last do
      if field(KEYS[p], string.match(KEYS[i], '\31(.*)$') or '') ~= '' then there[i] = true end
    end
  end
end
if next(there) or redis.call('EXISTS', unpack(KEYS, parts + 1, parts + 2 * n)) > 0 then
  for i = parts + 1, parts + n do
    if there[i] or redis.call('EXISTS', KEYS[i], KEYS[n + i]) > 0 then taken[#taken + 1] = i - parts end
  end
end
for i, v in ipairs(redis.call('MGET', unpack(KEYS, parts + 2 * n + 1))) do
  if v and v ~= '' then found[#found + 1], found[#found + 2] = i, v end
end
return {us, taken, found}
