-- KEYS entry
-- ARGV value, milliseconds, the mark of the note
if string.sub(entry_id(KEYS[1]), 1, 1) == ARGV[3] then return {0} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1}
