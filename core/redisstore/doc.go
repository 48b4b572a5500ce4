// Package redisstore is the tier that instances of a cache share, on Redis: one
// server, a master watched by Sentinel, or a cluster. Redis 6.2 or newer; 6.2.7 where
// min-replicas-to-write is relied on, which scripts of older ones ignore. MANAGED.md,
// beside this file, lists the commands that managed services leave out, and the effect of
// each.
//
//	cache, err := core.New(core.Options{Remote: redisstore.New(client)})
//
// LATENCY.md has a table of hits and waiting times at round trips from 1 to 400 ms, and of
// the core.Options.RemoteBudget that they need.
//
// The tier reads the options of the client and never uses the client itself. It makes its
// own clients, which respect the deadline of each call and never repeat a command (see
// New). Close the cache before the client.
//
// Comments cite the rules of the protocol by number (R1 to R28); core/PROTOCOL.md states them.
//
// # What is in Redis
//
// Everything is under <namespace>:, spread over partitions by hash tag, so that
// what belongs to one name lies in one slot of a cluster:
//
//	<ns>:layout                     hash    what all instances agree on
//	<ns>:{07}:head                  hash    state of partition 7
//	<ns>:{07}:log                   stream  its invalidations, the last 16,000 or so
//	<ns>:{07}:e:<version>\x1f<key>  string  entry, expires, at most 7 days
//	<ns>:{07}:l:<version>\x1f<key>  string  lease to fill the entry, expires
//	<ns>:{07}:g:<tag>               string  generation of a tag, expires
//	<ns>:{07}:i:k:<name>, i:t:<tag> hash    open intents on it, expires
//
// and, of changes that are queued (write-behind), without an expiry,
//
//	<ns>:{07}:q                     hash    records: what is queued for each key
//	<ns>:{07}:qo:<queue>            zset    keys of one queue, the longest queued first
//	<ns>:{07}:qr:<queue>            zset    keys to be retried, by the time of the retry
//	<ns>:{07}:qw:<queue>            string  the worker, and its deadline
//	<ns>:{07}:qd:<queue>            stream  dead letters, the last 10,000
//	<ns>:{07}:qx:<queue>            hash    which letter a key has
//
// and two channels: <ns>:hints, in a format of its own, and <ns>:invalidate, where
// any program may publish key:<key>, tag:<tag>, path:<path>, pattern:<glob> or all, as
// best effort: an instance that is not subscribed at that moment misses the message.
//
// In a cluster each partition has a channel of hints, <ns>:{07}:hints, in the slot of
// its keys. Redis 7 and later publishes there by SPUBLISH, to the nodes of that shard
// alone, and an instance has one subscribed connection to each master. A slot that
// moves, or a master that fails, cuts the hints of its partitions, which are
// subscribed to again as soon as the client knows their servers: until then, and
// while servers of both kinds are there, MaxStaleness is what holds. Older servers,
// and users without the right to sharded pub/sub, publish to the whole cluster.
//
// The tier touches no key of another namespace. Missing or malformed data is a miss, so
// Redis may evict, lose or corrupt all of it except the queues. A queued change exists
// nowhere else: write-behind needs a maxmemory-policy that does not evict it (noeviction or
// volatile-*; the cache refuses others), and appendonly yes if a restart must not lose it.
// A failover loses acknowledged changes that were not replicated.
//
// # How it fails
//
// A shard of a cluster that is down takes what depends on its partitions: the keys
// and tags that lie there, and all and patterns, which are pending until it is back.
// The rest is answered as before if Redis serves it, for which the cluster must be
// configured with cluster-require-full-coverage no: otherwise Redis itself stops the
// other shards while slots are without a server. The layout lies in one shard as
// well. While that is down, no instance can join, InvalidateEverywhere returns an error,
// and after 40 seconds the instances stop answering from the cache altogether, since
// others may have forgotten their MaxStaleness.
//
// Every method returns an error, which names the operation, when the outcome is unknown;
// none waits longer than its context. An error is a core.ErrUnusable where another attempt
// would fail as well: a wrong client, version or permission, or a command that the server
// does not know. go-redis logs a line for each failed connection; Disable of its package
// logging turns that off.
package redisstore
