-- The id of this server's data set: another one after a promotion or a restart.
local function server()
  local id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
  if not id then error('no master_replid in INFO replication') end
  return id
end
