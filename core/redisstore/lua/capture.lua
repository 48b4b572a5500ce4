-- A generation lives for LIFE, longer than any entry that carries it, and is lengthened when
-- it is found with less than REFRESH left; but not one that is about to expire (SOON): it ends
-- at a deadline, though the intent may have been lost.
local LIFE, REFRESH, SOON = 691200000, 648000000, 3600000

-- capture returns the generation of a tag, of which v was read, and makes it of made where v
-- is nil. A generation that is made under open intents expires at the earliest deadline: what
-- was loaded under it ends with it; the hash of the intents keeps how long it would live
-- without them. A token ends in the microseconds of its making: only a generation that is old
-- by it is asked how long it lives.
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
