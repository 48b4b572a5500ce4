// Package httpcache is an HTTP response cache over core: what may be stored for
// whom and for how long (RFC 9111, as a shared cache), which request asks for
// which response, what to answer from a stored one (RFC 9110), and what a write
// invalidates. It is the same for all frameworks; the adapters (nethttp,
// echocache, gincache, fibercache) translate and decide nothing.
//
// # What it stores
//
// By default nothing that RFC 9111 forbids a shared cache to store, no response
// that sets a cookie, and no response to a request with a Cookie field unless the
// response says that it is public. The class's TTL is the lifetime of a response
// that states none. Every answer says in Cache-Status (RFC 9211) what happened,
// and if it was not stored, why.
//
// What has expired is kept for a while, to be validated: the handler is asked by
// the validator that it gave, in place of the client's conditions, and its 304
// renews the response. The request that others hold is not changed.
//
// CONFORMANCE.md has the score of the public suite for HTTP caches, ATTACKS.md what
// becomes of attacks on caches.
//
// # How it fails
//
// It steps aside: what cannot be captured (streamed, hijacked, over the limit,
// known to be uncacheable) goes to the client as the handler writes it. A
// handler's error or panic is its own; nothing of it is stored.
//
// # The order of things on a miss
//
// The response is buffered, stored, handed to those who wait, and only then sent
// to the client who set it off: a slow client holds nobody up, and one that goes
// away takes nothing with it. The handler's context outlives its client as long as
// others wait for the response.
//
// An invalidating request is the other way round: its intent is open before the
// handler runs, and the last byte of its answer is sent when the invalidation has
// happened, so that a client that has seen the answer never reads what was before.
package httpcache
