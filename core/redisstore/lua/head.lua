-- A field of a hash; '' if there is none, or no hash.
local function field(key, name)
  local v = good(redis.pcall('HGET', key, name))
  if type(v) == 'string' then return v end
  return ''
end

-- fields returns a reply of HMGET, or nothing where the key is no hash.
local function fields(reply)
  if good(reply).err then return {} end
  return reply
end

-- ready ensures that the head can be written. It is itself a write that a full Redis accepts, and
-- after a script's first write Redis refuses it no other for lack of memory.
local function ready(head)
  local r = redis.pcall('HDEL', head, '')
  if type(r) ~= 'table' or not r.err then return end
  if string.find(r.err, 'WRONGTYPE', 1, true) then
    redis.call('UNLINK', head)
  else
    redis.call('HDEL', head, '') -- raises it: a replica, say
  end
end

-- A token is unique to this execution. The nonce of the caller alone would repeat when the call is
-- executed again. The clock distinguishes tokens after the loss of the counter.
local function token(head, nonce, us)
  local n = redis.pcall('HINCRBY', head, 'n', 1)
  if type(n) ~= 'number' then
    redis.call('HSET', head, 'n', 1)
    n = 1
  end
  return nonce .. '.' .. n .. '.' .. us
end
