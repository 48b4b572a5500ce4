-- The id of this server's data set: another one after a promotion or a restart. Where
-- scripts may not call INFO it is what the caller has read outside, '' if it has not.
local function server(read)
  local info = redis.pcall('INFO', 'replication')
  if type(info) ~= 'string' then return read end
  return string.match(info, 'master_replid:(%w+)') or read
end
