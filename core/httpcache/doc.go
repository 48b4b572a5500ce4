// Package httpcache is an HTTP response cache over core. It decides which responses may be
// stored, for which clients and for how long (RFC 9111, as a shared cache), which request
// is for which response, how a stored response answers a request (RFC 9110), and what a
// write invalidates. It is the same for all frameworks.
//
// # The seam for adapters
//
// An adapter (nethttp, echocache, gincache, fibercache) implements [Exchange] for its
// framework and makes its middleware with [RouteMiddleware] and [WriteMiddleware]. It
// translates and decides nothing. Frameworks on net/http embed [StdExchange]. An exchange
// may implement more:
//
//   - [FieldSnapshotter] where handlers can change the request's fields: all do.
//   - [ContentReader] for requests with the method QUERY.
//   - [FieldReporter] to answer a hit without one lookup per field.
//   - [OuterReporter], with [HeaderSender] or [SentNotifier], where middleware between the
//     cache and the client can change an answer.
//
// # What it stores
//
// By default it stores no response that RFC 9111 forbids a shared cache to store, no
// response that sets a cookie, and no response to a request with a Cookie field unless the
// response is public. The class's TTL is the lifetime of a response that states none.
// Cache-Status (RFC 9211) in every answer reports how the cache handled the request, and
// why a response was not stored.
//
// An expired response with a validator is kept for an hour. The handler is then run with
// that validator in place of the client's conditions, and its 304 freshens the stored
// response (RFC 9111 section 4.3.4).
//
// CONFORMANCE.md has the score of the public suite for HTTP caches, ATTACKS.md the known
// attacks on caches with their outcome.
//
// # How it fails
//
// A response that cannot be captured (streamed, hijacked, over the limit, known to be
// uncacheable) bypasses the cache: it goes to the client as the handler writes it. An error
// or panic of a handler propagates, and nothing of its answer is stored.
//
// # The order of events
//
// On a miss the response is buffered, stored, given to the requests that wait for it, and
// then sent to the client that caused the load. A slow client delays no other request, and
// a client that leaves cancels the handler only if no other request waits.
//
// On a write the intent is open before the handler runs, and the last byte of the answer is
// sent after the invalidation. A client that has seen the whole answer never reads the value
// that preceded the write.
package httpcache
