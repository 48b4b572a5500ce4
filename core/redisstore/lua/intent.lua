-- Intents of writers on one key or tag: a hash. It has a field w:<writer> for each intent,
-- '<deadline>:<end of the record>', in milliseconds; x:<id> for each entry that intents on its key
-- have capped, with its former expiry; gen, the same for the generation, '<its
-- token>:<milliseconds>'; lag, the time until which a replica may lag. A key of another type holds
-- no intents.

local function writer(value)
  local deadline, known = string.match(value, '^(%d+):(%d+)$')
  return tonumber(deadline), tonumber(known)
end

-- The field gen, and the end that it records for the generation of a token: nil if the field is of
-- another generation.
local function lived_field(token, lived) return token .. ':' .. digits(lived) end
local function lived_of(text, token)
  local of, lived = string.match(text, '^(.*):(%d+)$')
  return of == token and tonumber(lived) or nil
end

-- intents returns the time until the earliest deadline of a hash's open intents, the time since the
-- latest lapse (0: none), and 1 if a replica may lag, for the name or, until lag, for the whole
-- partition.
local function intents(key, lag, now)
  local open, lapsed = 0, 0
  local h = good(redis.pcall('HGETALL', key))
  if not h.err then
    for i = 1, #h, 2 do
      if h[i] == 'lag' then
        lag = math.max(lag, tonumber(h[i + 1]) or 0)
      elseif string.sub(h[i], 1, 2) == 'w:' then
        local deadline, known = writer(h[i + 1])
        if deadline and deadline > now then
          if open == 0 or deadline - now < open then open = deadline - now end
        elseif deadline and known > now then
          local ago = math.max(1, now - deadline)
          if lapsed == 0 or ago < lapsed then lapsed = ago end
        end
      end
    end
  end
  return open, lapsed, lag > now and 1 or 0
end
