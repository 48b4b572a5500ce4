-- A lease is its token, followed by '!' when a caller waits for its end.
local function holder(lease)
  local v = good(redis.pcall('GET', lease))
  if type(v) ~= 'string' or v == '' then return '', false end
  if string.sub(v, -1) == '!' then return string.sub(v, 1, -2), true end
  return v, false
end

-- The id of an entry, from the beginning of its envelope; '' if there is none.
local function entry_id(entry)
  local v = good(redis.pcall('GETRANGE', entry, 0, 257))
  if type(v) ~= 'string' or #v < 4 or string.byte(v, 1) ~= 0xe7 then return '' end
  local n = string.byte(v, 3)
  if #v < 3 + n then return '' end
  return string.sub(v, 4, 3 + n)
end
