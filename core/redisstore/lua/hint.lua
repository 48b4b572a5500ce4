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
