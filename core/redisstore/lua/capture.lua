-- capture gets or creates the generation of a tag. One that is made under open intents
-- expires at the earliest deadline: what was loaded under it dies with it; the hash of
-- the intents keeps how long it would live without them. The others
-- live longer than any entry that carries them, and are lengthened when they are
-- found; but not one that is about to expire: it ends at a deadline, though the
-- intent may have been lost.
local SOON = 3600000
local function capture(head, gen, of, open, nonce, now, us, life, refresh)
  local v = good(redis.pcall('GET', gen))
  if type(v) ~= 'string' or v == '' then
    v = 'g' .. token(head, nonce, us)
    if open > 0 then
      redis.call('SET', gen, v, 'PXAT', digits(now + open - 1))
      redis.call('HSET', of, 'gen', lived_field(v, now + tonumber(life)))
    else
      redis.call('SET', gen, v, 'PX', life)
    end
  elseif open == 0 then
    local left = redis.call('PTTL', gen)
    if left > SOON and left < tonumber(refresh) then redis.call('PEXPIRE', gen, life) end
  end
  return v
end
