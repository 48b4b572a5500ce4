-- Queues of a partition. Records are one hash for all of them, by key, with the last
-- version given under ''; order and retries are sorted sets of the keys of one queue,
-- by first version and by due time. worker is the end of the worker's lease and its name. It has
-- no expiry, since a full Redis evicts keys with one, and no worker could then empty the queue.
-- The key nothing never exists: while the slot is being moved, no call finds all of its keys, so
-- that the server refuses each call as a whole.
local records, order, retries, worker, letters, index, nothing = unpack(KEYS, 1, 7)

-- writable is a write that a full Redis accepts (see head), so that the queue can be emptied.
local function writable() redis.call('UNLINK', nothing) end

-- holding returns the worker of the queue, '' if there is none, and the rest of its lease.
local function holding(now)
  local v = good(redis.pcall('GET', worker))
  if type(v) ~= 'string' then return '', 0 end
  local till, who = string.match(v, '^(%d+):(.*)$')
  till = tonumber(till)
  if not till or till <= now then return '', 0 end
  return who, till - now
end

-- texts returns the records of keys, unparsed; '' is the last version.
local function texts(keys)
  if #keys == 0 then return {} end
  local found = good(redis.pcall('HMGET', records, unpack(keys)))
  if found.err then
    found = {}
    for i = 1, #keys do found[i] = false end
  end
  return found
end

-- size returns the number of keys of a sorted set, nil if it is none.
local function size(set)
  local n = good(redis.pcall('ZCARD', set))
  if type(n) == 'number' then return n end
  return nil
end

-- mend rebuilds the order from the records if the key of the order, or of the retries, has another
-- type. The changes to be retried are then tried at once.
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

-- removed removes keys from a sorted set.
local function removed(set, keys)
  if #keys > 0 then good(redis.pcall('ZREM', set, unpack(keys))) end
end
