-- capture gets or creates the generation of a tag. One that was made under an open
-- intent begins with p, expires at the intent's deadline, and is never lengthened:
-- what was loaded under it dies with it. The others begin with g, and live longer
-- than any entry that carries them.
local function capture(head, gen, open, nonce, now, us, life, refresh)
  local v = good(redis.pcall('GET', gen))
  if type(v) ~= 'string' or v == '' then
    if open > 0 then
      v = 'p' .. token(head, nonce, us)
      redis.call('SET', gen, v, 'PXAT', digits(now + open))
    else
      v = 'g' .. token(head, nonce, us)
      redis.call('SET', gen, v, 'PX', life)
    end
  elseif open == 0 and string.sub(v, 1, 1) ~= 'p' and redis.call('PTTL', gen) < tonumber(refresh) then
    redis.call('PEXPIRE', gen, life)
  end
  return v
end
