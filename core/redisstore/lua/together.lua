-- Entries of a batch, stored without leases (R30).
-- KEYS head, log and records of each partition; then of all items their generations, entries,
-- leases, intents on the keys, and intents on the tags
-- ARGV version, number of partitions, number of items; for each partition the position (id, token),
-- the era, and the number of its items; for each item generation, keep until, entry
local now = clock()
local version, parts, n = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local first = 3 * parts -- the keys before those of the items
local left = {} -- whether an item is left out

local function key_of(i) return string.match(KEYS[first + n + i], '\31(.*)$') or '' end

-- touched returns the kinds and values of items of a log, nil if one of them may concern everything.
local function touched(joined, items)
  if joined ~= 1 then return nil end
  local of = {}
  for i = 1, #items, 5 do
    local kind, value = items[i], items[i + 1]
    if kind == '6' then kind, value = string.match(value, '^(%d):%d+:[^:]*:(.*)$') end -- the begin of an intent
    if kind == '1' or kind == '2' then
      of[kind .. value] = true
    elseif kind ~= '7' then
      return nil
    end
  end
  return of
end

local last = 0
for p = 1, parts do
  local id, tok, era = ARGV[4 * p], ARGV[4 * p + 1], ARGV[4 * p + 2]
  local from = last + 1
  last = last + tonumber(ARGV[4 * p + 3])
  local head, log, records = KEYS[3 * p - 2], KEYS[3 * p - 1], KEYS[3 * p]
  local h = fields(redis.pcall('HMGET', head, 'era', 'ptok', 'lag', 'v:' .. version, 'vn'))
  local of = {}
  if era == '' or tok == '' or h[1] ~= era or (tonumber(h[3] or '') or 0) > now then
    of = nil
  elseif h[2] ~= tok then
    local joined, _, items = since(h[2] or '', log, id, tok)
    of = touched(joined, items)
  end
  local queued = redis.call('EXISTS', records) > 0
  for i = from, last do
    if not of then
      left[i] = true
    elseif next(of) then
      local tag = string.sub(KEYS[first + i], #head - 1) -- behind the prefix and g:
      left[i] = of['1' .. key_of(i)] or of['2' .. tag]
    end
    if queued and not left[i] and field(records, key_of(i)) ~= '' then left[i] = true end
  end
  -- As in acquire.lua.
  local noted = tonumber(h[4] or '')
  if of and (not noted or now - noted > 3600000) then
    if h[5] and not noted then redis.call('HINCRBY', head, 'vn', 1) end
    redis.call('HSET', head, 'v:' .. version, digits(now))
  end
end

-- Usually there is no lease and no intent, and one question shows it.
if redis.call('EXISTS', unpack(KEYS, first + 2 * n + 1, first + 5 * n)) > 0 then
  for i = 1, n do
    local k = first + 2 * n + i
    if redis.call('EXISTS', KEYS[k], KEYS[k + n], KEYS[k + 2 * n]) > 0 then left[i] = true end
  end
end

local out = {}
for i = 1, n do
  local a = 4 * parts + 3 * i + 1
  local generation, made, stored = KEYS[first + i], ARGV[a], false
  if not left[i] then
    -- The first write of a script is refused by a full Redis, and no later one.
    local v = not redis.call('SET', generation, made, 'NX', 'PX', '691200000') and good(redis.pcall('GET', generation))
    if not v or v == made then
      if v then capture(v, generation, '', 0, made, now) end
      stored = redis.call('SET', KEYS[first + n + i], ARGV[a + 2], 'NX', 'PXAT', ARGV[a + 1])
    end
  end
  if not stored then out[#out + 1] = i end
end
return out
