-- Dead letters are a stream, and a hash of the id of each key's letter. A later change of the key
-- removes its letter.
local function supersede(keys)
  local ids = good(redis.pcall('HMGET', index, unpack(keys)))
  if ids.err then return end
  local gone, of = {}, {}
  for i, id in ipairs(ids) do
    if id then gone[#gone + 1], of[#of + 1] = id, keys[i] end
  end
  if #gone == 0 then return end
  redis.pcall('XDEL', letters, unpack(gone))
  redis.call('HDEL', index, unpack(of))
end

-- A letter is k, v, f, a, p and why: key, version, first, attempts, payload, reason.
local function letter(e)
  local m = {}
  for j = 1, #e[2] - 1, 2 do m[e[2][j]] = e[2][j + 1] end
  if not (m.k and m.v and m.f and m.a and m.p and m.why) then return nil end
  return m
end

-- bury makes a record a dead letter. Beyond the maximum number the oldest are lost.
local function bury(key, r, why, most)
  local payload = string.sub(r.text, r.at)
  local function add()
    return redis.pcall('XADD', letters, '*', 'k', key, 'v', r.version, 'f', r.first, 'a', r.attempts + 1,
      'p', payload, 'why', why)
  end
  local id = add()
  if type(id) ~= 'string' then -- not a stream, or one that takes no more
    redis.call('UNLINK', letters)
    id = add()
  end
  if type(id) ~= 'string' then error('a dead letter was refused') end
  local n = redis.pcall('HSET', index, key, id)
  if type(n) ~= 'number' then
    redis.call('UNLINK', index)
    redis.call('HSET', index, key, id)
  end
  local over = redis.call('XLEN', letters) - most
  if over <= 0 then return end
  for _, e in ipairs(redis.call('XRANGE', letters, '-', '+', 'COUNT', over)) do
    local m = letter(e)
    if m and redis.call('HGET', index, m.k) == e[1] then redis.call('HDEL', index, m.k) end
    redis.call('XDEL', letters, e[1])
  end
end
