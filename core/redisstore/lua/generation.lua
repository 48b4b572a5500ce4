-- KEYS head, generation, intents on the tag
-- ARGV nonce, milliseconds that a generation lives, below which it is lengthened
local now, us = clock()
local open, _, lagging = intents(KEYS[3], KEYS[1], now)
local v = capture(KEYS[1], KEYS[2], KEYS[3], open, ARGV[1], now, us, ARGV[2], ARGV[3])
return {now, v, field(KEYS[1], 'era'), open, lagging, field(KEYS[1], 'ptok')}
