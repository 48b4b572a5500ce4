-- versions_of returns those in use that were not given (at from in args, and how many),
-- whose keys would stay, and the fields of the head of those that have lapsed.
local function versions_of(head, args, from, count, now, known)
  local given, unknown, lapsed = {}, {}, {}
  for i = from, from + count - 1 do given[args[i]] = true end
  local state = good(redis.pcall('HGETALL', head))
  if state.err then return unknown, lapsed end
  for i = 1, #state, 2 do
    local version = string.match(state[i], '^v:(.*)$')
    if version and now - (tonumber(state[i + 1]) or now) >= known then
      lapsed[#lapsed + 1] = state[i]
    elseif version and not given[version] then
      unknown[#unknown + 1] = version
    end
  end
  return unknown, lapsed
end
