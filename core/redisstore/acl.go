package redisstore

// ACL returns the rules of a Redis user for a tier in a namespace (core.Options.Namespace),
// for ACL SETUSER or a users.acl file. They grant nothing beyond the needs of the tier:
//
//	ACL SETUSER larder on >password resetkeys resetchannels ~larder:* &larder:* -@all +get …
//
// The user can neither read nor change a key outside the namespace. Of the commands on the
// whole keyspace it can run SCAN, which shows the names of all keys of the database. The
// rules also suit a program that only invalidates (see Program). They do not grant CLIENT
// SETINFO, which go-redis clients of the app send when they connect to Redis 7.2 or later
// and the tier's clients do not.
func ACL(namespace string) []string {
	rules := []string{"resetkeys", "resetchannels", "~" + namespace + ":*", "&" + namespace + ":*", "-@all"}
	for _, command := range []string{
		// Entries, leases and generations.
		"get", "mget", "getdel", "getrange", "exists", "set", "append", "unlink", "pttl", "pexpire", "pexpireat", "type",
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
		// The client sends these when it connects, and to a cluster.
		"hello", "auth", "select", "client|setname", "command", "readonly",
		"cluster|slots", "cluster|shards", "cluster|nodes", "asking",
	} {
		rules = append(rules, "+"+command)
	}
	return append(rules, "-psubscribe", "-punsubscribe", "-pubsub")
}
