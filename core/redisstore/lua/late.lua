-- KEYS head, generation, intents on the tag, log
-- ARGV nonce; the position: id, token
local now, us = clock()
local head = fields(redis.pcall('HMGET', KEYS[1], 'era', 'ptok', 'lag'))
local open, lapsed, lagging = intents(KEYS[3], tonumber(head[3] or '') or 0, now)
local v = good(redis.pcall('GET', KEYS[2]))
if type(v) ~= 'string' or v == '' then v = nil end
v = capture(v, KEYS[2], KEYS[3], open, not v and 'g' .. token(KEYS[1], ARGV[1], us), now)
local joined, trimmed, items = since(head[2] or '', KEYS[4], ARGV[2], ARGV[3])
return {now, v, head[1] or '', open, lagging, head[2] or '', lapsed, joined, trimmed, items}
