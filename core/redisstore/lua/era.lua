-- KEYS head
-- ARGV nonce, channel, partition, confirmed before, 1: unconditionally, partitions, protocol, kind of the hint,
-- id of the server's data set as read outside the script, '' if it was not read: the script returns -1 if it needs it
local now, us = clock()
ready(KEYS[1])
if ARGV[5] ~= '1' and field(KEYS[1], 'era') ~= '' and field(KEYS[1], 'confirmed') ~= ARGV[4] then return 0 end
local id = server(ARGV[9])
if id == '' then return -1 end
local tok = token(KEYS[1], ARGV[1], us)
local before, at = field(KEYS[1], 'ptok'), field(KEYS[1], 'pid')
-- The position is after all logged items and before all later ones.
if at == '' then at = digits(now - 1) .. '-0' end
redis.call('HSET', KEYS[1], 'era', tok, 'sweep', tok, 'ptok', tok, 'pid', at,
  'confirmed', id, 'parts', ARGV[6], 'proto', ARGV[7])
-- The item stands for unknown invalidations.
local lag = tonumber(field(KEYS[1], 'lagmax')) or 0
if lag > 0 then redis.call('HSET', KEYS[1], 'lag', digits(now + lag)) end
hint(ARGV[2], {'i', ARGV[3], ARGV[8], ARGV[3], at, tok, before})
return 1
