package redisstore

// ACL returns the rules that a Redis user needs for a tier in a namespace, for ACL
// SETUSER or a users.acl file, and no more:
//
//	ACL SETUSER larder on >password resetkeys resetchannels ~larder:* &larder:* -@all +get …
//
// The user can neither read nor change a key outside the namespace, nor run a
// command that looks at the whole keyspace but SCAN, which shows the names of all
// keys of the database. A program that only invalidates (see Program) needs eval
// and the commands that change something, so the same rules fit it. A client of an
// app's own that uses the same user may send CLIENT SETINFO when it connects, from Redis
// 7.2 on, and is denied it; the tier's clients do not send it.
func ACL(namespace string) []string {
	rules := []string{"resetkeys", "resetchannels", "~" + namespace + ":*", "&" + namespace + ":*", "-@all"}
	for _, command := range []string{
		// Entries, leases and generations.
		"get", "mget", "getrange", "exists", "set", "append", "unlink", "pttl", "pexpire", "pexpireat", "type",
		// Heads, intents and the layout.
		"hget", "hgetall", "hmget", "hset", "hdel", "hincrby",
		// The log.
		"xadd", "xrange",
		// Queues.
		"zadd", "zcard", "zrange", "zrangebyscore", "zrem", "zscore", "xdel", "xlen",
		// Hints.
		// By category: Redis before 7 refuses rules that name a command of 7.
		"@pubsub",
		// Patterns.
		"scan",
		// Scripts, and the state of the server.
		"eval", "evalsha", "time", "info", "ping",
		// What the client asks for when it connects, and of a cluster.
		"hello", "auth", "select", "client|setname", "command", "readonly",
		"cluster|slots", "cluster|shards", "cluster|nodes", "asking",
	} {
		rules = append(rules, "+"+command)
	}
	return append(rules, "-psubscribe", "-punsubscribe", "-pubsub")
}
