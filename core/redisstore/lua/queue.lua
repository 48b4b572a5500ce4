-- Queues of a partition. Records are one hash for all of them, by key, with the last
-- version given under ''; order and retries are sorted sets of the keys of one queue,
-- by first version and by when they are due; worker is until when somebody works on it,
-- and who: without an expiry, for which a full Redis would evict it, and nobody could
-- empty the queue.
-- nothing is never there: while the slot is on its way to another server, no call
-- finds all of its keys, so that each is refused as a whole.
local records, order, retries, worker, letters, index, nothing = unpack(KEYS, 1, 7)

-- writable is a write that a full Redis takes (see head), so that it can be emptied.
local function writable() redis.call('UNLINK', nothing) end

-- holding returns the worker of the queue, '' if there is none, and for how long it has it.
local function holding(now)
  local v = good(redis.pcall('GET', worker))
  if type(v) ~= 'string' then return '', 0 end
  local till, who = string.match(v, '^(%d+):(.*)$')
  till = tonumber(till)
  if not till or till <= now then return '', 0 end
  return who, till - now
end

-- texts returns the records of keys, as they are; '' is the last version.
local function texts(keys)
  if #keys == 0 then return {} end
  local found = good(redis.pcall('HMGET', records, unpack(keys)))
  if found.err then
    found = {}
    for i = 1, #keys do found[i] = false end
  end
  return found
end

-- size returns how many keys a sorted set has, nil if it is none.
local function size(set)
  local n = good(redis.pcall('ZCARD', set))
  if type(n) == 'number' then return n end
  return nil
end

-- mend makes the order anew from the records where something else is in its place, or
-- in that of the retries, which are then tried at once.
local function mend(queue)
  if size(order) and size(retries) then return end
  for _, set in ipairs({order, retries}) do
    if not size(set) then redis.call('UNLINK', set) end
  end
  local all = good(redis.pcall('HGETALL', records))
  if all.err then return end
  for i = 1, #all, 2 do
    local r = all[i] ~= '' and record(all[i + 1])
    if r and r.queue == queue and not redis.call('ZSCORE', retries, all[i]) then
      redis.call('ZADD', order, r.first, all[i])
    end
  end
end

-- removed takes keys out of a sorted set.
local function removed(set, keys)
  if #keys > 0 then good(redis.pcall('ZREM', set, unpack(keys))) end
end
