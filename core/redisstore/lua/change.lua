-- KEYS head, log; then for a key item per version its entry, per version its
-- lease, and the intents on it; for a tag item its generation and the intents on it
-- ARGV nonce, channel, partition, intent, mode, milliseconds: lasts, remain (of an intent
-- that is closed: the life of a generation), lag, how long a version is known; how
-- many items to keep in the log; how many versions there are, and those; then kind and
-- value of each item
local KEY, TAG, PATTERN, ALL, ERA, BEGUN, CLOSED = '1', '2', '3', '4', '5', '6', '7'
local BEGIN, END, ABANDON = '1', '2', '3'
local head, log = KEYS[1], KEYS[2]
local nonce, channel, partition, id, mode = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local lasts, remain, lag, known = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local keep, versions = ARGV[10], tonumber(ARGV[11])
local now, us = clock()
local deadline = now + math.max(1, lasts)

-- The keys of a version that the caller does not know would stay, so that the caller must ask
-- again.
local unknown, lapsed, state, left = versions_of(head, ARGV, 12, versions, now, known)
if #unknown > 0 then return {'versions', now, unpack(unknown)} end
if not state then -- another type is in the head's place
  redis.call('UNLINK', head)
  state = {}
end
lag = math.max(lag, tonumber(state.lagmax or '') or 0)
if mode == BEGIN or mode == ABANDON then lag = 0 end -- nothing has changed
local items, woken = {}, {}
local gone, leases, of, marked = {}, {}, {}, {}
local invalidates = mode ~= BEGIN and mode ~= ABANDON
local at = 3
for i = 12 + versions, #ARGV, 2 do
  local item = {kind = ARGV[i], value = ARGV[i + 1]}
  items[#items + 1] = item
  if item.kind == KEY then
    item.entries = at
    for j = invalidates and at or at + versions, at + 2 * versions - 1 do gone[#gone + 1] = KEYS[j] end
    for j = at + versions, at + 2 * versions - 1 do
      leases[#leases + 1], of[#of + 1] = KEYS[j], item.value
    end
    at = at + 2 * versions
  elseif item.kind == TAG then
    item.generation = KEYS[at]
    if invalidates then gone[#gone + 1] = KEYS[at] end
    at = at + 1
  end
  if item.kind == KEY or item.kind == TAG then
    item.intents = KEYS[at]
    marked[#marked + 1] = KEYS[at]
    at = at + 1
  end
end

-- Removals come first, since a full Redis must still make them. It accepts UNLINK, and the write of
-- ready.
if mode ~= ABANDON then
  if #gone == 0 then ready(head) end
  for _, name in ipairs(lapsed) do redis.call('HDEL', head, name) end
end

-- Many keys in one command, but no more than Lua can pass.
local MOST = 1000
local MOST_OF_HINT = 8192
if mode ~= ABANDON then
  for i = 1, #leases, MOST do
    for j, v in ipairs(redis.call('MGET', unpack(leases, i, math.min(i + MOST - 1, #leases)))) do
      if v and string.sub(v, -1) == '!' then woken[of[i + j - 1]] = true end
    end
  end
  for i = 1, #gone, MOST do redis.call('UNLINK', unpack(gone, i, math.min(i + MOST - 1, #gone))) end
end

-- Usually no key exists, and one question shows it.
local untouched = mode ~= BEGIN and lag <= 0
for i = 1, untouched and #marked or 0, MOST do
  untouched = untouched and redis.call('EXISTS', unpack(marked, i, math.min(i + MOST - 1, #marked))) == 0
end

-- cap limits the life of a key to a time, and returns its former end, nil if that was not later.
-- For Redis a key lives through the millisecond in which it expires.
local function cap(key, until_)
  local left = redis.call('PTTL', key)
  if left == -2 or (left >= 0 and now + left < until_) then return nil end
  redis.call('PEXPIREAT', key, digits(until_ - 1))
  return left >= 0 and now + left or nil
end

-- open_but returns whether the own intent is open and its deadline has not passed, whether it
-- exists at all, and the earliest deadline of the others.
local function open_but(h)
  local own, there, earliest = false, false, nil
  for i = 1, #h, 2 do
    if string.sub(h[i], 1, 2) == 'w:' then
      local ends = writer(h[i + 1])
      if h[i] == 'w:' .. id then
        there = true
        own = ends and ends > now
      elseif ends and ends >= now and (not earliest or ends < earliest) then
        earliest = ends
      end
    end
  end
  return own, there, earliest
end

-- cap_generation limits the life of a generation, and records its former end in the hash of the
-- intents, unless an earlier intent has recorded it. A cap whose record is lost cannot be lifted.
local function cap_generation(item)
  local lived = cap(item.generation, deadline)
  local tok = lived and good(redis.pcall('GET', item.generation))
  if type(tok) ~= 'string' or tok == '' or lived_of(field(item.intents, 'gen'), tok) then return end
  redis.call('HSET', item.intents, 'gen', lived_field(tok, lived))
end

-- lift_generation extends a generation to its end without intents, or to until_.
local function lift_generation(item, until_)
  local tok = good(redis.pcall('GET', item.generation))
  local lived = type(tok) == 'string' and lived_of(field(item.intents, 'gen'), tok)
  if lived and until_ then lived = math.min(lived, until_) end
  if lived and lived > now then redis.call('PEXPIREAT', item.generation, digits(lived)) end
end

-- lift removes the caps of the own intent, up to the earliest deadline of the others. It returns
-- whether the intent exists. If not, others may have been lost with it. An intent that has passed
-- its deadline cannot be lifted.
local function lift(item)
  local h = redis.pcall('HGETALL', item.intents)
  if h.err then return false end
  local own, there, earliest = open_but(h)
  if not own then return there end
  if item.kind == TAG then
    lift_generation(item, earliest and earliest - 1)
    return true
  end
  for j = item.entries, item.entries + versions - 1 do
    local lived = tonumber(field(item.intents, 'x:' .. entry_id(KEYS[j])))
    if lived and earliest then lived = math.min(lived, earliest - 1) end
    if lived and lived > now then redis.call('PEXPIREAT', KEYS[j], digits(lived)) end
  end
  return true
end

-- lives returns the fields of an item's hash that hold the expiry of each existing entry. A missing
-- entry needs no field, and overlapping intents would accumulate such fields.
local function lives(item, others)
  local of = {}
  if invalidates or not (others or mode == BEGIN) then return of end -- everything is gone, or no intent could lift it
  if item.kind == TAG then
    of.gen = true
  else
    for j = item.entries, item.entries + versions - 1 do of['x:' .. entry_id(KEYS[j])] = true end
  end
  return of
end

-- touch removes the call's own intent, and enters an intent or the lag of a replica. The hash lasts
-- as long as any of its fields is needed.
local function touch(item)
  local key = item.intents
  local h = good(redis.pcall('HGETALL', key))
  if h.err then
    if mode == ABANDON then return end
    redis.call('UNLINK', key)
    h = {}
  end
  if id ~= '' then redis.call('HDEL', key, 'w:' .. id) end
  local others, old = false, 0
  for i = 1, #h, 2 do
    if h[i] == 'lag' then
      old = tonumber(h[i + 1]) or 0
    elseif string.sub(h[i], 1, 2) == 'w:' and h[i] ~= 'w:' .. id then
      local deadline, remembered = writer(h[i + 1])
      if not deadline or remembered <= now then
        redis.call('HDEL', key, h[i])
      elseif deadline > now then
        others = true
      end
    end
  end
  local of = lives(item, others)
  for i = 1, #h, 2 do
    if (h[i] == 'gen' or string.sub(h[i], 1, 2) == 'x:') and not of[h[i]] then redis.call('HDEL', key, h[i]) end
  end
  if mode == ABANDON then return end
  local until_ = 0
  if lag > 0 then
    redis.call('HSET', key, 'lag', digits(math.max(old, now + lag)))
    until_ = now + lag
  end
  if mode == BEGIN then
    redis.call('HSET', key, 'w:' .. id, digits(deadline) .. ':' .. digits(deadline + remain))
    until_ = math.max(until_, deadline + remain)
  end
  if until_ > 0 then
    local left = redis.call('PTTL', key)
    if left < 0 or now + left < until_ then redis.call('PEXPIREAT', key, digits(until_)) end
  end
end

-- The items of the log.
local said = items
if mode == BEGIN then
  said = {}
  for _, item in ipairs(items) do
    if item.intents then touch(item) end
    if item.kind == TAG then
      cap_generation(item)
    elseif item.kind == KEY then
      for j = item.entries, item.entries + versions - 1 do
        local lived, entry = cap(KEYS[j], deadline), entry_id(KEYS[j])
        if lived and entry ~= '' and field(item.intents, 'x:' .. entry) == '' then
          redis.call('HSET', item.intents, 'x:' .. entry, digits(lived))
        end
      end
    end
    said[#said + 1] = {kind = BEGUN, value = item.kind .. ':' .. digits(deadline) .. ':' .. id .. ':' .. item.value}
  end
elseif mode == ABANDON then
  local there = false
  for _, item in ipairs(items) do
    if item.intents and not untouched then
      there = lift(item) or there
      touch(item)
    end
  end
  if not there then return {'done', now} end
  said = {{kind = CLOSED, value = id}}
elseif mode == END then
  said = {}
  for _, item in ipairs(items) do said[#said + 1] = item end
  said[#said + 1] = {kind = CLOSED, value = id}
end

-- A token as in head.lua; the counter is written with the rest of the head.
local count = (tonumber(state.n or '') or 0) + 1
local base = nonce .. '.' .. count .. '.' .. us
local before = state.ptok or ''
local moved = {n = count, vn = mode ~= ABANDON and left or nil} -- an Abandon leaves what has lapsed
if mode == BEGIN then
  moved['until'] = digits(math.max(tonumber(state['until'] or '') or 0, deadline))
end
local function append(item, tok, follows)
  return redis.pcall('XADD', log, 'MAXLEN', '~', keep, '*', 'k', item.kind, 'v', item.value, 't', tok, 'b', follows)
end
local reply = {'done', now}
for i, item in ipairs(said) do
  local tok = base .. '.' .. i
  if item.intents then
    if not untouched then touch(item) end
  elseif lag > 0 and (item.kind == PATTERN or item.kind == ALL or item.kind == ERA) then
    moved.lag = digits(math.max(tonumber(state.lag or '') or 0, now + lag))
  end
  if item.kind == PATTERN or item.kind == ALL then moved.sweep = tok end
  if item.kind == ALL or item.kind == ERA then moved.era = tok end
  local at_ = append(item, tok, before)
  if type(at_) ~= 'string' then -- not a stream, or one that takes no more
    redis.call('UNLINK', log)
    at_ = append(item, tok, before)
  end
  if type(at_) ~= 'string' then -- instances that cannot read the log drop everything
    at_ = ''
    moved.era, moved.sweep = tok, tok
  end
  item.at, item.tok, item.before = at_, tok, before
  before = tok
  moved.pid, moved.ptok = at_, tok
  reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = at_, tok, item.before
end
local written = {}
for name, v in pairs(moved) do written[#written + 1], written[#written + 2] = name, v end
redis.call('HSET', head, unpack(written))
-- Many items are published several to a message, since each subscriber receives each message.
local message, size = {'i', partition}, 0
for _, item in ipairs(said) do
  if size > MOST_OF_HINT then
    hint(channel, message)
    message, size = {'i', partition}, 0
  end
  for _, v in ipairs({item.kind, item.value, item.at, item.tok, item.before}) do
    message[#message + 1] = v
    size = size + #v
  end
end
if size > 0 then hint(channel, message) end
for key in pairs(woken) do hint(channel, {'w', key}) end
return reply
