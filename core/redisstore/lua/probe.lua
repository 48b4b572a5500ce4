-- Each command that scripts call is called once, on keys of the probe, so that refused commands
-- are known before an operation depends on them.
-- KEYS a string, a hash, a stream, a sorted set, all in one slot
-- ARGV channel, milliseconds after which the keys expire
local text, hash, stream, set = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local refused = {}
local function try(command, reply)
  if type(reply) == 'table' and reply.err then
    refused[#refused + 1], refused[#refused + 2] = command, reply.err
  end
end
local t = redis.pcall('TIME')
if t.err then return {'TIME', t.err} end -- without a clock nothing else can be tried
local gone = digits(t[1] * 1000 + tonumber(ARGV[2]))
try('SET', redis.pcall('SET', text, 'x', 'PXAT', gone))
try('SET', redis.pcall('SET', text, 'x', 'PX', ARGV[2]))
try('GET', redis.pcall('GET', text))
try('MGET', redis.pcall('MGET', unpack({text})))
try('GETRANGE', redis.pcall('GETRANGE', text, 0, 1))
try('APPEND', redis.pcall('APPEND', text, 'x'))
try('EXISTS', redis.pcall('EXISTS', text))
try('TYPE', redis.pcall('TYPE', text))
try('PTTL', redis.pcall('PTTL', text))
try('PEXPIRE', redis.pcall('PEXPIRE', text, ARGV[2]))
try('HSET', redis.pcall('HSET', hash, 'a', 'x', 'b', 'x'))
try('PEXPIREAT', redis.pcall('PEXPIREAT', hash, gone))
try('HDEL', redis.pcall('HDEL', hash, ''))
try('HGET', redis.pcall('HGET', hash, 'a'))
try('HGETALL', redis.pcall('HGETALL', hash))
try('HMGET', redis.pcall('HMGET', hash, 'a', 'b'))
try('HINCRBY', redis.pcall('HINCRBY', hash, 'n', 1))
local id = redis.pcall('XADD', stream, 'MAXLEN', '~', '10', '*', 'a', 'x')
try('XADD', id)
try('PEXPIREAT', redis.pcall('PEXPIREAT', stream, gone))
try('XRANGE', redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 1))
try('XLEN', redis.pcall('XLEN', stream))
if type(id) == 'string' then try('XDEL', redis.pcall('XDEL', stream, id)) end
try('ZADD', redis.pcall('ZADD', set, 1, 'a'))
try('PEXPIREAT', redis.pcall('PEXPIREAT', set, gone))
try('ZCARD', redis.pcall('ZCARD', set))
try('ZSCORE', redis.pcall('ZSCORE', set, 'a'))
try('ZRANGE', redis.pcall('ZRANGE', set, 0, 0, 'WITHSCORES'))
try('ZRANGEBYSCORE', redis.pcall('ZRANGEBYSCORE', set, '-inf', '(9', 'WITHSCORES', 'LIMIT', 0, 1))
try('ZREM', redis.pcall('ZREM', set, 'a'))
try('GETDEL', redis.pcall('GETDEL', text))
try('UNLINK', redis.pcall('UNLINK', text, hash, stream, set))
try('INFO', redis.pcall('INFO', 'replication'))
-- As in the function hint; the channel has no subscriber.
local sharded = string.find(ARGV[1], '{', 1, true) and type(redis.pcall('SPUBLISH', ARGV[1], '')) == 'number'
if not sharded then try('PUBLISH', redis.pcall('PUBLISH', ARGV[1], '')) end
return refused
