-- The head of a partition that is not where the slot map says, with what Heads
-- asks of its server.
-- KEYS head
ready(KEYS[1])
return {redis.call('INFO', 'replication'), redis.call('TIME'),
  redis.call('HMGET', KEYS[1], 'pid', 'ptok', 'era', 'sweep', 'confirmed', 'parts', 'proto', 'lagmax')}
