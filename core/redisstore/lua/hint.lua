-- A hint is a version and strings with their length before each. Nobody waits for
-- it and it may be lost, so a user who may not publish is no error.
local lengths = {} -- as they are written: to write a number is what costs most
local function hint(channel, ...)
  local out = {'L1'}
  for _, v in ipairs({...}) do
    local n = lengths[#v]
    if not n then
      n = #v .. ':'
      lengths[#v] = n
    end
    out[#out + 1] = n
    out[#out + 1] = v
  end
  redis.pcall('PUBLISH', channel, table.concat(out))
end
