-- KEYS head, generation, intents on the tag, log
-- ARGV as of generation; then the position: id, token
local now, us = clock()
local open, lapsed, lagging = intents(KEYS[3], KEYS[1], now)
local v = capture(KEYS[1], KEYS[2], KEYS[3], open, ARGV[1], now, us, ARGV[2], ARGV[3])
local joined, trimmed, items = since(KEYS[1], KEYS[4], ARGV[4], ARGV[5])
return {now, v, field(KEYS[1], 'era'), open, lagging, field(KEYS[1], 'ptok'), lapsed, joined, trimmed, items}
