-- KEYS layout
-- ARGV protocol, partitions wanted, milliseconds: staleness, replica lag; version;
-- milliseconds after which durations lapse, and versions
local now = clock()
local r = redis.pcall('HDEL', KEYS[1], '') -- a write that a full Redis takes, see head
if type(r) == 'table' and r.err then
  if not string.find(r.err, 'WRONGTYPE', 1, true) then return r end
  return {'type', redis.call('TYPE', KEYS[1]).ok}
end
local h, raw = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #raw, 2 do h[raw[i]] = raw[i + 1] end
if h.protocol and h.protocol ~= ARGV[1] then return {'protocol', h.protocol} end
local p = tonumber(h.partitions or ARGV[2])
if not p or p < 1 or p > 64 or p ~= math.floor(p) then return {'partitions', h.partitions} end

local function renew(name, life)
  h[name] = digits(now + tonumber(life))
  redis.call('HSET', KEYS[1], name, h[name])
end
if not h.protocol or not h.partitions then
  redis.call('HSET', KEYS[1], 'protocol', ARGV[1], 'partitions', digits(p))
end
renew('stale:' .. ARGV[3], ARGV[6])
renew('lag:' .. ARGV[4], ARGV[6])
renew('ver:' .. ARGV[5], ARGV[7])

local most = {stale = 0, lag = 0}
local reply = {'agreed', now, p, 0, 0}
for name, v in pairs(h) do
  local what, value = string.match(name, '^(%l+):(.*)$')
  if what == 'stale' or what == 'lag' or what == 'ver' then
    if (tonumber(v) or 0) <= now then
      redis.call('HDEL', KEYS[1], name)
    elseif what == 'ver' then
      reply[#reply + 1] = value
    else
      most[what] = math.max(most[what], tonumber(value) or 0)
    end
  end
end
reply[4], reply[5] = most.stale, most.lag
return reply
