package redisstore

import (
	"strings"
)

// Program is the script by which any other program invalidates, with the promise
// that Cache.Invalidate gives: redis-cli --eval, or EVAL of a client in any
// language. It is the file invalidate.lua beside this one.
//
//	redis-cli --eval invalidate.lua 'larder:{00}:head' , tag product:42
//	redis-cli --eval invalidate.lua 'larder:{00}:head' , key user:42
//	redis-cli --eval invalidate.lua 'larder:{00}:head' , path /items
//	redis-cli --eval invalidate.lua 'larder:{00}:head' , all
//
// larder is the namespace of the cache. After the reply OK, and MaxStaleness at most, no instance
// answers the target from a load that began before. A pattern invalidates everything, since a
// safe search for the matching entries takes more than one step. In a cluster the key must be of
// the partition of the target; otherwise the error names the right one.
//
// The file is generated from the scripts of this package. After a change of them, run
//
//	LARDER_WRITE=1 go test -run TestProgram ./core/redisstore
func Program() string {
	var b strings.Builder
	b.WriteString("-- Invalidates in a cache of Larder's from redis-cli or any other language:\n" +
		"--   redis-cli --eval invalidate.lua 'larder:{00}:head' , tag product:42\n" +
		"-- See Program in package redisstore of github.com/larderhq/larder.\n\n")
	for _, name := range []string{"good", "unpack", "clock", "head", "hint", "lease", "intent", "versions", "change()", "program"} {
		b.WriteString(source(name))
	}
	return b.String()
}
