// Package core is a cache for values and for whole HTTP responses that is never
// stale after an invalidation. It depends on no web framework: packages nethttp,
// echocache, gincache and fibercache are the middleware on top of it.
//
//	cache, err := core.New(core.Options{
//		Classes: core.Classes{
//			"product": {TTL: 5 * time.Minute, StaleWhileRevalidate: time.Minute},
//			"profile": {TTL: time.Hour},
//		},
//	})
//	defer cache.Close()
//
// # What it promises
//
// Let a call of [Cache.Invalidate] begin at time s and return nil at time t. Every
// read that begins after t is answered only from loads that began after s. This
// holds for keys, tags, paths, patterns and everything, and it covers fresh values,
// stale values and running loads. In one process it holds without exception. Over
// several processes it holds as soon as a message arrives, and after
// [Options.MaxStaleness] at the latest. A change that is not announced becomes
// visible when the TTL ends.
//
// Concurrent reads of one key share one run of its loader or handler. They share
// its value or its error, and never its panic or its cancellation.
//
// # How it fails
//
// If the cache fails, the handler or loader runs. A value that is too large, that
// was invalidated during its load or that does not decode is a miss and not an
// error. Bad input is a [*ConfigError] that names the field, its value and the
// allowed values. It is returned before anything is done.
//
// # How it works
//
// A [Class] sets the lifetime of one kind of data. Every entry has tags, and every
// tag has a generation. An invalidation of the tag ends its generation in O(1),
// however many entries have the tag. A load reads the invalidations since its
// begin: if one concerns its value, the value is not stored. A writer opens an
// intent ([Cache.Begin]), which invalidates at a deadline even if the writer dies
// after its commit. The in-process tier is Otter v2, with a limit in bytes.
// PROTOCOL.md, beside this file, states every rule and the failure that it
// prevents.
package core
