-- A lease is its token, followed by '!' if a caller waits for its end. held_by parses the value of
-- the key: the token, '' if there is none, and whether a caller waits.
local function held_by(v)
  if type(v) ~= 'string' or v == '' then return '', false end
  if string.sub(v, -1) == '!' then return string.sub(v, 1, -2), true end
  return v, false
end

local function holder(lease) return held_by(good(redis.pcall('GET', lease))) end

-- id_of returns the id of an entry from the beginning of its envelope, '' if it is none.
local function id_of(v)
  if type(v) ~= 'string' or #v < 4 or string.byte(v, 1) ~= 0xe7 then return '' end
  local n = string.byte(v, 3)
  if #v < 3 + n then return '' end
  return string.sub(v, 4, 3 + n)
end

local function entry_id(entry) return id_of(good(redis.pcall('GETRANGE', entry, 0, 257))) end
