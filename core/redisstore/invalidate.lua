-- Invalidates in a cache of Larder's from redis-cli or any other language:
--   redis-cli --eval invalidate.lua 'larder:{00}:head' , tag product:42
-- See Program in package redisstore of github.com/larderhq/larder.

-- good returns a reply. A key of another type counts as missing. Any other error, such as that of
-- a withdrawn right, is raised, since it must not pass for an answer.
local function good(r)
  if type(r) == 'table' and r.err and not string.find(r.err, 'WRONGTYPE', 1, true) then error(r.err) end
  return r
end
-- Lua 5.4 has unpack in table.
local unpack = table.unpack or unpack
-- The server's clock, in milliseconds, and in microseconds as digits.
local function clock()
  local t = redis.call('TIME')
  local us = t[1] .. string.sub('00000' .. t[2], -6)
  return tonumber(string.sub(us, 1, -4)), us
end

-- A time or duration as Redis reads it: a number in Lua would become 1.7e+12.
local function digits(ms) return string.format('%.0f', ms) end
-- A field of a hash; '' if there is none, or no hash.
local function field(key, name)
  local v = good(redis.pcall('HGET', key, name))
  if type(v) == 'string' then return v end
  return ''
end

-- fields returns a reply of HMGET, or nothing where the key is no hash.
local function fields(reply)
  if good(reply).err then return {} end
  return reply
end

-- ready ensures that the head can be written. It is itself a write that a full Redis accepts, and
-- after a script's first write Redis refuses it no other for lack of memory.
local function ready(head)
  local r = redis.pcall('HDEL', head, '')
  if type(r) ~= 'table' or not r.err then return end
  if string.find(r.err, 'WRONGTYPE', 1, true) then
    redis.call('UNLINK', head)
  else
    redis.call('HDEL', head, '') -- raises it: a replica, say
  end
end

-- A token is unique to this execution. The nonce of the caller alone would repeat when the call is
-- executed again. The clock distinguishes tokens after the loss of the counter.
local function token(head, nonce, us)
  local n = redis.pcall('HINCRBY', head, 'n', 1)
  if type(n) ~= 'number' then
    redis.call('HSET', head, 'n', 1)
    n = 1
  end
  return nonce .. '.' .. n .. '.' .. us
end
-- A hint is a version and strings, each preceded by its length. No call waits for it, and it may be
-- lost, so that the lack of the right to publish is not an error. A channel with a brace in its
-- name belongs to a slot. It is published in its shard only, or, by a server that cannot do that
-- or does not allow it to this user, to the whole cluster.
local lengths = {} -- as they are written: to write a number is what costs most
local function hint(channel, fields)
  local out = {'L1'}
  for _, v in ipairs(fields) do
    local n = lengths[#v]
    if not n then
      n = #v .. ':'
      lengths[#v] = n
    end
    out[#out + 1] = n
    out[#out + 1] = v
  end
  local message = table.concat(out)
  if string.find(channel, '{', 1, true) and type(redis.pcall('SPUBLISH', channel, message)) == 'number' then return end
  redis.pcall('PUBLISH', channel, message)
end
-- A lease is its token, followed by '!' if a caller waits for its end. held_by parses the value of
-- the key: the token, '' if there is none, and whether a caller waits.
local function held_by(v)
  if type(v) ~= 'string' or v == '' then return '', false end
  if string.sub(v, -1) == '!' then return string.sub(v, 1, -2), true end
  return v, false
end

local function holder(lease) return held_by(good(redis.pcall('GET', lease))) end

-- id_of returns the id of an entry from the beginning of its envelope, '' if it is none.
local function id_of(v)
  if type(v) ~= 'string' or #v < 4 or string.byte(v, 1) ~= 0xe7 then return '' end
  local n = string.byte(v, 3)
  if #v < 3 + n then return '' end
  return string.sub(v, 4, 3 + n)
end

local function entry_id(entry) return id_of(good(redis.pcall('GETRANGE', entry, 0, 257))) end
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

local function change(KEYS, ARGV)
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
end

-- KEYS[1] the head of a partition: <namespace>:{07}:head. On one server that of
-- any partition works; in a cluster the reply names the right one.
-- ARGV kind (key, tag, path, pattern, all) and value; then, optionally, the
-- milliseconds for which a replica of the database may lag
local ns, hex = string.match(KEYS[1] or '', '^(.*):{(%x%x)}:head$')
if not ns then return redis.error_reply('ERR larder: the first key must be like larder:{00}:head') end
local what, value = ARGV[1] or '', ARGV[2] or ''
local lag = tonumber(ARGV[3] or '0')
local KINDS = {key = '1', tag = '2', path = '2', pattern = '3', all = '4'}
local kind = KINDS[what]
if what == 'key' and string.find(value, '^https?://') then kind = '2' end
if not kind then return redis.error_reply('ERR larder: the kind is one of key, tag, path, pattern, all') end
if kind ~= '4' and (value == '' or #value > 1024 or string.find(value, '%c')) then
  return redis.error_reply('ERR larder: the value has 1 to 1024 bytes and no control characters')
end
if not lag or lag < 0 then return redis.error_reply('ERR larder: the lag is a number of milliseconds') end
if what == 'key' and string.find(value, '^https?://') then what = 'path' end -- the key of a response stands for its path
if what == 'path' then
  value = string.match(value, '^https?://[^/]*(/[^?#]*)') or value
  if string.sub(value, 1, 1) ~= '/' or string.find(value, '[?#]') then
    return redis.error_reply('ERR larder: a path begins with / and has no ? and no #')
  end
  value = string.gsub(value, '%%(%x%x)', function(x) return string.char(tonumber(x, 16)) end)
end
if what == 'tag' then value = 't:' .. value elseif what == 'path' then value = 'p:' .. value end
if what == 'pattern' then
  -- A search for the entries takes many steps, during which no instance may keep them. A program
  -- cannot ensure that, and invalidates everything instead.
  kind, value = '4', ''
end

local parts = tonumber(field(KEYS[1], 'parts'))
if not parts then return redis.error_reply('ERR larder: no cache of this namespace is in use: nothing to invalidate') end
local info = redis.pcall('INFO', 'cluster')
local clustered = type(info) ~= 'string' or string.find(info, 'cluster_enabled:1', 1, true) ~= nil

local function one(partition, item)
  local prefix = ns .. ':{' .. string.format('%02x', partition) .. '}:'
  local head = prefix .. 'head'
  local versions, state = {}, good(redis.pcall('HGETALL', head))
  if not state.err then
    for i = 1, #state, 2 do
      local v = string.match(state[i], '^v:(.*)$')
      if v then versions[#versions + 1] = v end
    end
  end
  local keys = {head, prefix .. 'log'}
  local args = {ns .. '/program', clustered and prefix .. 'hints' or ns .. ':hints', tostring(partition), '', '0', '0', '0', tostring(lag),
    '9007199254740991', '16384', tostring(#versions)}
  for _, v in ipairs(versions) do args[#args + 1] = v end
  if item == '1' then
    for _, v in ipairs(versions) do keys[#keys + 1] = prefix .. 'e:' .. v .. '\31' .. value end
    for _, v in ipairs(versions) do keys[#keys + 1] = prefix .. 'l:' .. v .. '\31' .. value end
    keys[#keys + 1] = prefix .. 'i:k:' .. value
  elseif item == '2' then
    keys[#keys + 1] = prefix .. 'g:' .. value
    keys[#keys + 1] = prefix .. 'i:t:' .. value
  end
  args[#args + 1] = item
  args[#args + 1] = value
  return change(keys, args)
end

if kind ~= '4' then
  local name = value
  while string.sub(name, 1, 2) == 't:' do name = string.sub(name, 3) end
  local partition = tonumber(string.sub(redis.sha1hex(name), 1, 4), 16) % parts
  if clustered and tonumber(hex, 16) ~= partition then
    return redis.error_reply('ERR larder: run it with the key ' .. ns .. ':{' .. string.format('%02x', partition) .. '}:head')
  end
  one(partition, kind)
elseif clustered then
  one(tonumber(hex, 16), kind)
  return 'OK for partition ' .. hex .. ': run it for each of ' .. ns .. ':{00}:head to ' .. ns ..
    ':{' .. string.format('%02x', parts - 1) .. '}:head, then for each once more'
else
  for partition = 0, parts - 1 do one(partition, kind) end
end
return 'OK'
