-- The head of a partition that is not on the server of the slot map, with the answers of its
-- server for Heads; without INFO if scripts may not call it.
-- KEYS head
ready(KEYS[1])
local info = redis.pcall('INFO', 'replication')
if type(info) ~= 'string' then info = '' end
return {info, redis.call('TIME'),
  redis.call('HMGET', KEYS[1], 'pid', 'ptok', 'era', 'sweep', 'confirmed', 'parts', 'proto', 'lagmax', 'until')}
