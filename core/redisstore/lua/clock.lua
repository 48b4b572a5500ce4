-- The server's clock, in milliseconds, and in microseconds as digits.
local function clock()
  local t = redis.call('TIME')
  local us = t[1] .. string.sub('00000' .. t[2], -6)
  return tonumber(string.sub(us, 1, -4)), us
end

-- A time or duration as Redis reads it: a number in Lua would become 1.7e+12.
local function digits(ms) return string.format('%.0f', ms) end
