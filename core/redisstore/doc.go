// Package redisstore is the shared tier of the instances of a cache on Redis: one server, a
// master that Sentinel watches, or a cluster. It needs Redis 6.2 or later, and 6.2.7 or later if
// min-replicas-to-write is used, which scripts of earlier versions ignore. MANAGED.md, beside
// this file, lists the commands that managed services lack, and the effect of each.
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
// Comments cite the rules of the protocol by number (R1 to R30); core/PROTOCOL.md states them.
//
// # What is in Redis
//
// All keys begin with <namespace>:. They are distributed over partitions by hash tag, so that
// the keys of one name lie in one slot of a cluster:
//
//	<ns>:layout                     hash    the settings on which all instances agree
//	<ns>:{07}:head                  hash    state of partition 7
//	<ns>:{07}:log                   stream  its invalidations, the last 16,000 or so
//	<ns>:{07}:e:<version>\x1f<key>  string  entry, expires, at most 7 days
//	<ns>:{07}:l:<version>\x1f<key>  string  lease to fill the entry, expires
//	<ns>:{07}:g:<tag>               string  generation of a tag, expires
//	<ns>:{07}:i:k:<name>, i:t:<tag> hash    open intents on it, expires
//
// Queued changes (write-behind) have keys without an expiry:
//
//	<ns>:{07}:q                     hash    records: the queued change of each key
//	<ns>:{07}:qo:<queue>            zset    keys of one queue, the longest queued first
//	<ns>:{07}:qr:<queue>            zset    keys to be retried, by the time of the retry
//	<ns>:{07}:qw:<queue>            string  the worker, and its deadline
//	<ns>:{07}:qd:<queue>            stream  dead letters, the last 10,000
//	<ns>:{07}:qx:<queue>            hash    the dead letter of each key
//
// There are two channels. <ns>:hints has a format of its own. On <ns>:invalidate any program
// may publish key:<key>, tag:<tag>, path:<path>, pattern:<glob> or all, as best effort: an
// instance that is not subscribed at that moment misses the message.
//
// In a cluster each partition has a channel of hints, <ns>:{07}:hints, in the slot of its keys.
// Redis 7 and later publishes there by SPUBLISH, only to the nodes of that shard, and an instance
// has one subscribed connection to each master. The move of a slot, or the failure of a master,
// cuts the hints of its partitions. The instance subscribes again as soon as the client knows
// their servers. Until then, and while servers before and after Redis 7 are mixed, messages
// may be missed, and MaxStaleness is the bound. Earlier servers, and users without the right to
// sharded pub/sub, publish to the whole cluster.
//
// The tier touches no key of another namespace. Missing or malformed data is a miss, so that
// Redis may evict, lose or corrupt all data except the queues. A queued change exists only in
// Redis. Write-behind needs a maxmemory-policy that does not evict it (noeviction or volatile-*;
// the cache refuses others), and appendonly yes if a restart must not lose it. A failover loses
// acknowledged changes that were not replicated.
//
// By default, values are stored as they are, compressed from 512 bytes. [Seal] encrypts them.
//
// # How it fails
//
// If a shard of a cluster is down, entries whose keys or tags lie in its partitions are loaded,
// and invalidations of them, of patterns and of everything are pending until the shard is back.
// All other entries are answered as before if Redis serves them. The cluster must be configured
// with cluster-require-full-coverage no; otherwise Redis stops the other shards while slots have
// no server. The layout lies in one shard. While that shard is down, no instance can join, and
// InvalidateEverywhere returns an error. After 40 seconds the instances stop answering from the
// cache, since other instances may no longer know their MaxStaleness.
//
// Every method returns an error, which names the operation, if the outcome is unknown. No method
// waits longer than its context. An error is a core.ErrUnusable if another attempt would fail as
// well: a wrong client, version or permission, or a command that the server does not know.
// go-redis logs a line for each failed connection; logging.Disable of its package turns that off.
package redisstore
