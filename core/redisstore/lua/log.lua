-- KEYS head, log
-- ARGV position: id, token
local joined, trimmed, items = since(field(KEYS[1], 'ptok'), KEYS[2], ARGV[1], ARGV[2])
return {joined, trimmed, items}
