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
