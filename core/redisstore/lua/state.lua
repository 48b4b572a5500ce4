-- The head of a partition that is not where the slot map says, with what Heads
-- asks of its server; no INFO where scripts may not call it.
-- KEYS head
ready(KEYS[1])
local info = redis.pcall('INFO', 'replication')
if type(info) ~= 'string' then info = '' end
return {info, redis.call('TIME'),
  redis.call('HMGET', KEYS[1], 'pid', 'ptok', 'era', 'sweep', 'confirmed', 'parts', 'proto', 'lagmax', 'until')}
