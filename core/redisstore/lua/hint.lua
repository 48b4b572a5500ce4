-- A hint is a version and strings with their length before each. Nobody waits for
-- it and it may be lost, so a user who may not publish is no error.
local function hint(channel, ...)
  local out = {'L1'}
  for _, v in ipairs({...}) do out[#out + 1] = #v .. ':' .. v end
  redis.pcall('PUBLISH', channel, table.concat(out))
end
