-- put queues changes, each {key =, payload =, lease = '' or a token, tag = '' or a tag, keys = theirs as in
-- change}, and invalidates their keys and tags. args are those of change, without the items. It returns
-- the version of each, 0 if the queue is full, -1 if its lease is missing, and the reply of change, nil if no change
-- was queued.
local function put(now, us, queue, limit, changes, head, log, args)
  local nonce = args[1]
  local names = {''}
  for i, c in ipairs(changes) do names[i + 1] = c.key end
  local found = texts(names)
  local last = tonumber(found[1] or '')
  if not (last and last >= 0 and last < 2 ^ 53) then last = 0 end
  us = tonumber(us)
  local room = limit - (size(order) or 0) - (size(retries) or 0)

  local between = rest(0, nonce, queue)
  local versions, set, ordered, keys = {}, {}, {}, {}
  local taken, taken_keys = {unpack(args)}, {head, log}
  for i, c in ipairs(changes) do
    local r = record(found[i + 1])
    local here = r and r.queue == queue
    local again = here and r.by == nonce -- this call, executed once more
    local version = 0
    if again then
      version = tonumber(r.version)
    elseif c.lease ~= '' and c.lease ~= holder(c.held) then
      version = -1
    elseif here or room > 0 then
      version = math.max(us, last + 1)
      last = version
      local text = digits(version)
      local first = here and r.first or text
      if not here then room = room - 1 end
      set[#set + 1], set[#set + 2] = c.key, text .. ':' .. first .. between .. c.payload
      ordered[#ordered + 1], ordered[#ordered + 2] = first, c.key
      keys[#keys + 1] = c.key
    end
    if version > 0 then
      for _, k in ipairs(c.keys) do taken_keys[#taken_keys + 1] = k end
      taken[#taken + 1], taken[#taken + 2] = '1', c.key
      if c.tag ~= '' then taken[#taken + 1], taken[#taken + 2] = '2', c.tag end
    end
    versions[i] = version
  end
  if #taken == #args then return versions, nil end

  -- The first write is one that a full Redis refuses, so that the script has its whole effect or
  -- none. The write changes nothing: without the right to ZADD no record must be left that no
  -- worker applies.
  good(redis.pcall('ZADD', order, 'XX', 1, ''))
  set[#set + 1], set[#set + 2] = '', digits(last)
  local r = redis.pcall('HSET', records, unpack(set))
  if type(r) == 'table' and r.err then
    if string.find(r.err, 'WRONGTYPE', 1, true) then redis.call('UNLINK', records) end
    redis.call('HSET', records, unpack(set)) -- or raises it: out of memory, say
  end
  mend(queue)
  if #keys > 0 then
    redis.call('ZADD', order, unpack(ordered))
    removed(retries, keys)
    supersede(keys)
  end
  return versions, change(taken_keys, taken)
end
