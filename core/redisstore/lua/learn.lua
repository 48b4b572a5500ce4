-- KEYS entry
-- ARGV value, milliseconds
local now = clock()
local was = good(redis.pcall('GET', KEYS[1]))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {now, type(was) == 'string' and was or ''}
