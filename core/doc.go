// Package core is a cache for data and for whole responses that is never stale
// after an invalidation. It knows no web framework: packages nethttp, echocache,
// gincache and fibercache put one line of middleware on top of it.
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
// Let an Invalidate that began at s return nil at t. Whatever begins after t is
// answered only from loads that began after s: by key, tag, path, pattern or all,
// whatever was stored, stale or on its way. In one process this holds without
// exception. Who announces no change gets no promise beyond the class's TTL.
//
// However many ask for one key at the same time, its loader or handler runs once.
// Those who wait share its value or its error, never its panic or cancellation.
//
// # How it fails
//
// It gives way to the handler. A value that is too large, that was invalidated as
// it was loaded or that does not decode is a miss, not an error. Bad input is a
// *ConfigError that names the field, its value and what is allowed, before
// anything has been done.
//
// # How it works
//
// Classes say how long a kind of data lives. Every entry carries tags; a tag has a
// generation, and invalidating the tag ends the generation in O(1), however many
// entries carry it. A load knows what was invalidated since it began, and what it
// loaded is not stored if that concerns it. A writer opens an intent (Begin), so
// that even a writer that dies between its commit and its invalidation leaves
// nothing old behind. The in-process tier is Otter v2, bounded in bytes. PROTOCOL.md,
// beside this file, states every rule with the failure that it prevents.
package core
