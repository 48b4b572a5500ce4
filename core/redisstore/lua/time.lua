-- KEYS any of the partition
return redis.call('TIME')
