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
// larder is the cache's namespace. When it has replied OK, no instance answers
// what it names from a load that began before, after MaxStaleness at most. A
// pattern takes everything with it: to find what matches in safety takes more than
// one step. In a cluster the key must be of the partition that the value belongs
// to; if it is another's, the error says which.
//
// It is made of the scripts of this package; after a change of them, run
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
