// Package adaptertest is the test suite of an adapter, and the guide to write one.
//
// An adapter connects package httpcache to a web framework. It translates requests and
// answers and decides nothing: httpcache decides what is stored, for whom and for how long.
// Four adapters exist. The shortest to read is nethttp (190 lines), for a framework on
// net/http; fibercache (1100 lines, with its workarounds for fasthttp) is the one for a
// framework with its own requests and answers.
//
// # The order of work
//
// Each step ends with cases of the suite that pass. Begin with the glue of step 1, so that
// the suite runs from the beginning: most cases fail then, and name what is missing.
//
//  1. The middleware and the glue of the test.
//  2. Requests: Line, Values, Param, Context, SnapshotFields.
//  3. Answers: Run, Release, Reply.
//  4. Errors that handlers return, where the framework has them.
//  5. Background refreshes: Detach.
//  6. Optional interfaces.
//
// # Step 1: the middleware and the glue
//
// The package has Cache, Invalidate, Route and WriteRoute, each a few lines over
// [httpcache.RouteMiddleware] and [httpcache.WriteMiddleware]; copy them from nethttp. The
// middleware makes an exchange per request, calls serve with it, and returns serve's error,
// unwrapped from *[httpcache.HandlerError].
//
// The test translates an [App] into the framework:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
//
//	func TestAdapter(t *testing.T) {
//		adaptertest.Run(t, adaptertest.Framework{Name: "nethttp", New: newServer})
//	}
//
//	func TestAdapterOverASharedTier(t *testing.T) {
//		adaptertest.Run(t, adaptertest.Framework{Name: "nethttp", New: newServer, Shared: true})
//	}
//
// New registers App.Outside around everything and each [Route] with its Uses, the outermost
// first; a switch over the type of a [Use] makes the middleware. A handler and an [Around]
// get a [Ctx], whose methods work in the framework's own terms; frameworks on net/http embed
// [Std] and use [Serve]. nethttp/adapter_test.go (140 lines) is the model for them,
// fibercache/adapter_test.go (190 lines) for others. The app answers the methods of the
// suite's routes (also QUERY and PROPFIND), accepts requests with 16 KiB of fields, and
// outlives the panic of a handler.
//
// The flags of [Framework] state what the framework cannot do without a cache, such as
// sending 103. The cases that need it are skipped with the flag's name. No flag excuses an
// adapter.
//
// A framework whose own goroutines outlast a closed server by their timers must tell goleak:
// fasthttp's pool of workers sleeps for ten seconds. Goroutines that a framework starts once
// per process, such as fasthttp's clock, start in the request that the suite sends before
// the first case.
//
// # Step 2: requests
//
// A framework on net/http embeds [httpcache.StdExchange], which has all methods but Param,
// Run and Detach. Others write:
//
//   - Line. Scheme is "http" or "https" as the handler sees it. Path is escaped as on the
//     wire. Original is the target as it came, where the framework has rewritten it. Strings
//     may be views of a buffer; a middleware of an Invalidate route clones them (Line.Clone),
//     since its handler may change the request.
//   - Values, by canonical name, one element per line. A field without a value has the
//     element "". After SnapshotFields the result is the same whatever handlers change.
//   - Param, decoded once; "*" is the wildcard, whatever its name in the pattern. The strings
//     outlive the request: clone them.
//   - Context: the context that middleware in front has set.
//
// Cases: identity*, vary* and invalidate* of the files identity.go, vary.go, invalidate.go.
//
// # Step 3: answers
//
// Run(ctx, c) calls the handlers behind the middleware with ctx as their context. Where the
// framework's context is a context.Context of its own, put ctx's value of
// [httpcache.ContextKey] there too, for the time of the run.
//
// With c nil, Run leaves the answer alone. Otherwise:
//
//   - Before the run, copy the header as outer middleware has set it. Header.Own compares
//     with that copy: unchanged fields are left out, a line added behind the old ones has the
//     mode Append, a removed field has the mode Remove. Header also has a method
//     Before(name string) []string with the values of that copy, which tells the Vary of
//     outer middleware from the handler's. Header.Values has what the client will see, so
//     also a field that the framework adds as it sends, such as a default Content-Type; in
//     Own that has the mode Absent.
//   - With c.Conditions not nil, the handlers see the request without its own conditions and
//     range (DropConditions) and with these fields. Undo that after the run.
//   - When the header is final, call c.Head(status, header) before the first byte of content
//     leaves. It returns whether to hold the answer back, and fields to add if not.
//   - Hold content up to c.Limit bytes. When the handler streams, flushes or hijacks, or the
//     content exceeds the limit, call c.Pass with [httpcache.Streamed] or
//     [httpcache.Oversized], add the fields that it returns, and send what was held. With
//     c.Tail (writes) send all but the last byte instead.
//   - At the end set c.Held and c.Body, a copy that later requests do not overwrite. Set
//     c.AbortStatus where the content is shorter than its stated Content-Length.
//   - On a panic, drop what is held and let the panic go on.
//
// On net/http [httpcache.NewWriter] does all this; Run calls Finish or Abandon.
//
// Release(fields) sends the held answer with fields added. Reply(a) sends another answer in
// its place: where the handlers have run, restore the copied header first. Both put fields
// into a header by their [httpcache.Mode]. A hit is Reply without a run. The body must be
// copied if outer middleware or the framework may write into it. The client must get the Date
// in a: with the time of the answer as its Date, a hit looks younger than it is (fasthttp sets
// its own; fibercache/header.go has a way around).
//
// Cases: the files exact.go, whose.go, hits.go, bounds.go, stream.go, write.go.
//
// # Step 4: errors
//
// A handler's error becomes a *[httpcache.HandlerError] with the status that the framework
// will answer, or 0. If c.WantsErrorAnswer(status), have the framework answer the error into
// the capture. If then c.KeepsErrorAnswer(), return nil. Otherwise restore the answer, call
// c.Retract, and return the error. Cases: failure.go, and in fresh.go those with
// StaleIfError.
//
// # Step 5: background refreshes
//
// Detach copies the request, without content (unless Content has returned it) and conditions, and
// returns a function that handles the copy after the request has ended. Best, it dispatches
// the copy through the whole app, so that middleware in front runs as for a client; the
// route's middleware recognizes its context by [httpcache.RefreshKey]. The copy's answer is
// discarded. Nothing of the copy may refer to the request's pooled memory. A function given
// to NotifySent (step 6) is called for a copy too, at its end. Cases: fresh.go, validate.go.
//
// # Step 6: interfaces beside Exchange
//
// httpcache finds them by type assertions. Only FieldReporter's Fields is a mere
// optimization; without the others an adapter breaks a promise wherever its framework has
// what they are for.
//
//   - OuterReporter, with HeaderSender (net/http) or SentNotifier (others), where middleware
//     in front of the cache can change an answer after its handlers: it may set a cookie, or
//     encode the content. Without them a response with the cookie of one client is stored.
//     Outer returns OuterNone wherever it can tell: behind unknown middleware no range is cut,
//     no strong ETag is added, and a response is stored only when it has been sent. Cases:
//     assent.go, compressed.go, outervary.go.
//   - FieldReporter, where the server verifies certificates of clients: without
//     HasClientCertificate a response to a certificate is shared. Fields saves a search per
//     field; return [httpcache.AllFields] at first. Cases: credentials.go.
//   - ContentReader: QUERY requests are cached by their content. Cases: question.go.
//   - A [Server] that is a [Warmer], a [Ctx] that is a [Remover], [RequestSetter],
//     [HandlerRunner] or [Uploader]: the cases that need one are skipped without it.
//
// # How to run it
//
//	go test -run TestAdapter ./myadapter                                  # everything, less than a minute
//	go test -run 'TestAdapter/a_hit_runs' -v ./myadapter                  # cases by a part of their name
//	go test -run TestAdapter -json ./myadapter | grep '"Action":"fail"'   # names of the failed cases
//	go test -race -run TestAdapter ./myadapter                            # before it is done
//
// # The parts of the suite
//
//	identity, vary, sometimes*   different requests share no entry
//	whose, credentials, assent   no client gets another's response
//	exact, hits, whole           the answer is the handler's, complete
//	stampede, under, distant     concurrent requests share one run, and none waits too long
//	fresh, lifetime, directives  RFC 9111: how long a response is used
//	validate*, precondition      RFC 9110: conditions, 304, 412
//	ranges, parts                RFC 9110: 206, 416
//	encodings, compressed        content that the cache or middleware in front encodes
//	invalidate, write, groups    no stale response after a write or an invalidation
//	scope, failure               the context functions, and errors
//	attack                       the attacks of httpcache/ATTACKS.md
//	bounds, fieldbounds          memory that clients can fill
//	instances                    several instances over one tier
//
// # How the cases work
//
// Each case tests one behaviour. It builds an app with a new cache, and speaks HTTP/1.1 to it
// over raw connections, so that it controls each byte of a request and sees each byte of an
// answer. Cases made by over run over loopback sockets. Cases made by within run in a
// testing/synctest bubble over pipes: time in it passes only when all goroutines wait, so
// that a case can show that nothing more happens.
//
// A comment that begins with "Elsewhere" names a fault that was found in another cache.
// Promises are named as in the README, "What it promises".
//
// # How a case is shown to fail
//
// The table in mutations_table_test.go takes the rules of the HTTP engine out of a copy of
// the source, one at a time, and demands that the cases named beside each rule fail:
//
//	go test -tags mutation -run TestTable ./core/adaptertest       # each text and each case exists
//	go test -tags mutation -timeout 60m -v ./core/adaptertest
//	go test -tags mutation -run 'TestMutations/a_response_with_Set-Cookie' ./core/adaptertest
//
// With LARDER_CASES=all the whole suite runs for each rule, and each case must fail for at
// least one of them, except those listed with a reason.
package adaptertest
