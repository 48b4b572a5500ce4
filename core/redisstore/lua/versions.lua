-- The head has a field v:<version> for each version in use, and the number of these fields in
-- vn, so that a change which knows all versions reads no more fields than it uses. If vn is
-- missing or differs, the change counts the fields.
-- state_of returns some fields of the head by name, nil if it is not a hash.
-- ARGV from .. from + count - 1 are the versions that are known.
local function state_of(head, args, from, count, now, known)
  local names = {'ptok', 'n', 'lagmax', 'until', 'lag', 'vn'}
  for i = 1, count do names[6 + i] = 'v:' .. args[from + i - 1] end
  local values = good(redis.pcall('HMGET', head, unpack(names)))
  if values.err then return nil, true end
  local state, there = {}, 0
  for i, name in ipairs(names) do
    local v = values[i]
    if v then
      state[name] = v
      if i > 6 and now - (tonumber(v) or now) < known then there = there + 1 end
    end
  end
  return state, tonumber(state.vn or '') == there
end

-- versions_of returns the versions in use that were not given, whose keys would stay; the names of
-- the fields of lapsed versions; the fields of the head that changes use, nil if it is not a
-- hash; and the number of remaining versions if that has to be written.
local function versions_of(head, args, from, count, now, known)
  local state, complete = state_of(head, args, from, count, now, known)
  if not state or complete then return {}, {}, state, nil end
  local given, unknown, lapsed, left = {}, {}, {}, 0
  for i = from, from + count - 1 do given[args[i]] = true end
  local all = redis.call('HGETALL', head)
  for i = 1, #all, 2 do
    local name = all[i]
    if string.sub(name, 1, 2) == 'v:' then
      if now - (tonumber(all[i + 1]) or now) >= known then
        lapsed[#lapsed + 1] = name
      else
        left = left + 1
        if not given[string.sub(name, 3)] then unknown[#unknown + 1] = string.sub(name, 3) end
      end
    end
  end
  return unknown, lapsed, state, left
end
