-- KEYS head, log; then for a key item per version its entry, per version its
-- lease, and the intents on it; for a tag item its generation and the intents on it
-- ARGV nonce, channel, partition, intent, mode, milliseconds: lasts, remain, lag,
-- how long a version is known; how many items to keep in the log; how many versions
-- there are, and those; then kind and value of each item
local KEY, TAG, PATTERN, ALL, ERA = '1', '2', '3', '4', '5'
local BEGIN, END, ABANDON = '1', '2', '3'
local head, log = KEYS[1], KEYS[2]
local nonce, channel, partition, id, mode = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local lasts, remain, lag, known = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local keep, versions = ARGV[10], tonumber(ARGV[11])
local now, us = clock()
lag = math.max(lag, tonumber(field(head, 'lagmax')) or 0)

-- The keys of a version that the caller does not know would stay: it must ask again.
local unknown, lapsed = versions_of(head, ARGV, 12, versions, now, known)
if #unknown > 0 then return {'versions', now, unpack(unknown)} end

-- First what goes, which is all that has to be right on a Redis that is full.
if mode ~= ABANDON then
  ready(head)
  for _, name in ipairs(lapsed) do redis.call('HDEL', head, name) end
end
local items, woken = {}, {}
local gone, leases, of, marked = {}, {}, {}, {}
local at = 3
for i = 12 + versions, #ARGV, 2 do
  local item = {kind = ARGV[i], value = ARGV[i + 1]}
  items[#items + 1] = item
  if item.kind == KEY then
    for j = at, at + 2 * versions - 1 do gone[#gone + 1] = KEYS[j] end
    for j = at + versions, at + 2 * versions - 1 do
      leases[#leases + 1], of[#of + 1] = KEYS[j], item.value
    end
    at = at + 2 * versions
  elseif item.kind == TAG then
    gone[#gone + 1] = KEYS[at]
    at = at + 1
  end
  if item.kind == KEY or item.kind == TAG then
    item.intents = KEYS[at]
    marked[#marked + 1] = KEYS[at]
    at = at + 1
  end
end

-- Many keys at once, but no more than Lua can pass.
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

-- Where there is nothing to touch, as nearly always, one question tells.
local untouched = mode ~= BEGIN and lag <= 0
for i = 1, untouched and #marked or 0, MOST do
  untouched = untouched and redis.call('EXISTS', unpack(marked, i, math.min(i + MOST - 1, #marked))) == 0
end

-- touch takes the own intent out, marks those of others, and enters what there is
-- to enter. The hash lasts as long as anything in it has to be known.
local function touch(key, tok)
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
  if mode == ABANDON then return end
  local until_ = 0
  if others then redis.call('HSET', key, 'mark', tok) end
  if lag > 0 then
    redis.call('HSET', key, 'lag', digits(math.max(old, now + lag)))
    until_ = now + lag
  end
  if mode == BEGIN then
    redis.call('HSET', key, 'w:' .. id, digits(now + lasts) .. ':' .. digits(now + lasts + remain))
    until_ = math.max(until_, now + lasts + remain)
  end
  if until_ > 0 then
    local left = redis.call('PTTL', key)
    if left < 0 or now + left < until_ then redis.call('PEXPIREAT', key, digits(until_)) end
  end
end

if mode == ABANDON then
  for _, item in ipairs(items) do
    if item.intents and not untouched then touch(item.intents, '') end
  end
  return {'done', now}
end

local base = token(head, nonce, us)
local before = field(head, 'ptok')
local moved = {}
local reply = {'done', now}
for i, item in ipairs(items) do
  local tok = base .. '.' .. i
  if item.intents then
    if not untouched then touch(item.intents, tok) end
  elseif lag > 0 then
    redis.call('HSET', head, 'lag', digits(math.max(tonumber(field(head, 'lag')) or 0, now + lag)))
  end
  if item.kind == PATTERN or item.kind == ALL then moved.sweep = tok end
  if item.kind == ALL or item.kind == ERA then moved.era = tok end
  local function append()
    return redis.pcall('XADD', log, 'MAXLEN', '~', keep, '*', 'k', item.kind, 'v', item.value, 't', tok, 'b', before)
  end
  local at_ = append()
  if type(at_) ~= 'string' then -- not a stream, or one that takes no more
    redis.call('UNLINK', log)
    at_ = append()
  end
  if type(at_) ~= 'string' then -- who cannot learn what has gone must let go of all
    at_ = ''
    moved.era, moved.sweep = tok, tok
  end
  item.at, item.tok, item.before = at_, tok, before
  before = tok
  moved.pid, moved.ptok = at_, tok
  for _, v in ipairs({at_, tok, item.before}) do reply[#reply + 1] = v end
end
for name, v in pairs(moved) do redis.call('HSET', head, name, v) end
-- Of many items, several in a message: each subscriber is sent each.
local message, size = {'i', partition}, 0
for _, item in ipairs(items) do
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
