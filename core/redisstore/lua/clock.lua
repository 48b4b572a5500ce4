-- The server's clock, in milliseconds, and in microseconds as digits.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000), string.format('%d%06d', t[1], t[2])
end

-- A time or duration as Redis reads it: a number in Lua would become 1.7e+12.
local function digits(ms) return string.format('%.0f', ms) end
