-- A generation lives for LIFE, longer than any entry that carries it, and is extended when less
-- than REFRESH is left. A generation with less than SOON left is not extended: it ends at the
-- deadline of an intent, which may have been lost.
local LIFE, REFRESH, SOON = 691200000, 648000000, 3600000

-- capture returns the generation of a tag, whose value v was read, and creates it from made if v
-- is nil. A generation that is created under open intents expires at the earliest deadline, and
-- so do the entries under it. The hash of the intents records its life without them. A token
-- ends in the microseconds of its creation, so that the rest of the life is read only for an old
-- generation.
local function capture(v, gen, of, open, made, now)
  if not v then
    if open > 0 then
      redis.call('SET', gen, made, 'PXAT', digits(now + open - 1))
      redis.call('HSET', of, 'gen', lived_field(made, now + LIFE))
    else
      redis.call('SET', gen, made, 'PX', '691200000')
    end
    return made
  end
  if open > 0 then return v end
  local us = tonumber(string.sub(v, -16))
  local age = us and now - us / 1000
  if age and age >= -1 and age < LIFE - REFRESH then return v end
  local left = redis.call('PTTL', gen)
  if left > SOON and left < REFRESH then redis.call('PEXPIRE', gen, '691200000') end
  return v
end
