-- KEYS head
-- ARGV milliseconds that a replica of the app's database may lag
if (tonumber(field(KEYS[1], 'lagmax')) or 0) >= tonumber(ARGV[1]) then return 0 end
ready(KEYS[1])
redis.call('HSET', KEYS[1], 'lagmax', ARGV[1])
return 1
