-- KEYS lease
-- ARGV token, channel, key
local held, waited = holder(KEYS[1])
if held == '' then hint(ARGV[2], {'w', ARGV[3]}) end -- it has expired: wake the waiters
if held ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
if waited then hint(ARGV[2], {'w', ARGV[3]}) end
return 1
