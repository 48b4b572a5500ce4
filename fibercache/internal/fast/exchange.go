package fast

import (
	"bytes"
	"context"
	"net/http"
	"sync"

	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

// A Request is a request as a major of Fiber has it.
type Request interface {
	// Context is the context that handlers find; SetContext sets it for those behind.
	Context() context.Context
	SetContext(ctx context.Context)
	// Method is the request's method for the router.
	Method() string
	// Scheme and Host are those that the app believes, be it from a proxy.
	Scheme() string
	Host() string
	// Param returns a parameter of the route, "" where there is none. decoded: the app
	// has decoded it.
	Param(name string) (value string, decoded bool)
	// Next runs the handlers behind the middleware.
	Next() error
	// Status returns the status that Fiber answers to an error, 0 if that is unknown.
	Status(err error) int
	// Fail has the app's error handler answer.
	Fail(err error)
	// Server is the server of the app.
	Server() *fasthttp.Server
	// AppHandler is the code of the handler of any app.
	AppHandler() uintptr
	// Outer says what is in front of the middleware on a route, Begin's.
	Outer(route any) httpcache.Outer
}

// State is what a middleware keeps between requests.
type State struct {
	outers   sync.Map // by the *fiber.Route that the middleware is on: httpcache.Outer
	prepared preparedHeaders
}

// Exchange is an httpcache.Exchange over fasthttp. An adapter embeds it and sets Request
// once.
type Exchange struct {
	Request Request

	ctx           *fasthttp.RequestCtx // nil when the middleware has returned
	route         any                  // that the middleware is on
	state         *State
	writes        bool
	asTheyCome    bool // names of fields are; once ctx is nil
	snapshotTaken bool
	contentRead   bool // Content has returned it
	ran           bool
	deferred      bool                    // it is in use until the answer has been sent
	request       fasthttp.RequestHeader  // as it was at SnapshotFields
	before        fasthttp.ResponseHeader // what outer middleware had set before Run
	values        []string
	target        []byte
}

var (
	_ httpcache.Exchange         = (*Exchange)(nil)
	_ httpcache.FieldSnapshotter = (*Exchange)(nil)
	_ httpcache.ContentReader    = (*Exchange)(nil)
	_ httpcache.OuterReporter    = (*Exchange)(nil)
	_ httpcache.SentNotifier     = (*Exchange)(nil)
)

// Begin prepares an exchange for a request, which Request knows already. route is where the
// middleware is on; writes says that its handlers may change the request.
func (x *Exchange) Begin(ctx *fasthttp.RequestCtx, state *State, route any, writes bool) {
	x.ctx, x.state, x.route, x.writes = ctx, state, route, writes
	x.snapshotTaken, x.contentRead, x.ran, x.deferred = false, false, false, false
	x.continueRefresh()
}

// End ends an exchange with what the engine has returned, which it returns as the handlers
// have. Not reusable: the exchange is still asked what the request was.
func (x *Exchange) End(err error) (reusable bool, own error) {
	x.ctx = nil
	if he, ok := err.(*httpcache.HandlerError); ok { //nolint:errorlint // made by Run, never wrapped
		err = he.Err
	}
	return !x.deferred, err
}

// Context implements httpcache.Exchange.
func (x *Exchange) Context() context.Context {
	if x.ctx == nil { // the answer has been sent
		return context.Background()
	}
	return x.Request.Context()
}

// response returns the response that is sent: a handler may have left its own to a timeout,
// and go on writing to it.
func (x *Exchange) response() (resp *fasthttp.Response, left bool) {
	if t := x.ctx.LastTimeoutErrorResponse(); t != nil {
		return t, true
	}
	return &x.ctx.Response, false
}

// Run implements httpcache.Exchange.
func (x *Exchange) Run(ctx context.Context, capture *httpcache.Capture) error {
	outer, said := x.Request.Context(), x.ctx.UserValue(httpcache.ContextKey)
	defer func() {
		x.Request.SetContext(outer)
		x.ctx.SetUserValue(httpcache.ContextKey, said)
	}()
	ctx, streams := outlasting(ctx, outer)
	x.Request.SetContext(ctx)
	x.ctx.SetUserValue(httpcache.ContextKey, ctx.Value(httpcache.ContextKey))
	if capture != nil {
		x.ran = true
		x.ctx.Response.Header.CopyTo(&x.before)
		if capture.Conditions != nil {
			defer x.ask(capture.Conditions)()
		}
	}
	if err := x.Request.Next(); err != nil {
		he := &httpcache.HandlerError{Err: err, Status: x.Request.Status(err)}
		if capture == nil || !x.answer(capture, he) {
			return he
		}
		return nil
	}
	if x.fill(capture) {
		streams(x.ctx)
	}
	return nil
}

// answer has the app's error handler answer an error into the capture, if its answer may
// be one to remember. It returns whether that is the answer to the request.
func (x *Exchange) answer(capture *httpcache.Capture, he *httpcache.HandlerError) bool {
	resp, left := x.response()
	if left || resp.IsBodyStream() || resp.ImmediateHeaderFlush || x.ctx.Hijacked() || !capture.WantsErrorAnswer(he.Status) {
		return false
	}
	var was fasthttp.Response
	resp.CopyTo(&was)
	x.Request.Fail(he.Err)
	x.fill(capture)
	if capture.KeepsErrorAnswer() {
		return true
	}
	he.Status = capture.Status
	was.CopyTo(resp)
	capture.Retract()
	return false
}

// fill shows a capture what has been answered. It returns whether content is still
// to come.
func (x *Exchange) fill(capture *httpcache.Capture) (streamed bool) {
	resp, streamed := x.response()
	streamed = streamed || resp.IsBodyStream() || resp.ImmediateHeaderFlush || x.ctx.Hijacked()
	if capture == nil {
		return streamed
	}
	status := resp.StatusCode()
	if status == http.StatusNotModified && capture.Conditions != nil {
		streamed = false // it has no content, and is not for the client
	}
	var body []byte
	if !streamed && status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified {
		body = resp.Body()
	}
	hold, add := capture.Head(status, newHeader(&resp.Header, &x.before, streamed || len(body) > 0))
	switch {
	case !hold:
	case streamed:
		add = capture.Pass(httpcache.Streamed)
	case len(body) <= capture.Limit:
		capture.Held, capture.Body = true, bytes.Clone(body)
		// fasthttp states the length that it sends. A handler that has stated another one
		// has not been able to write all it meant to (a proxy whose upstream died). Content
		// that has been encoded since has another length anyway.
		if stated := resp.Header.ContentLength(); stated > 0 && stated != len(body) && len(resp.Header.ContentEncoding()) == 0 {
			capture.AbortStatus = http.StatusInternalServerError
		}
	case !capture.Tail: // Fiber sends the tail of a write later anyway
		add = capture.Pass(httpcache.Oversized)
	}
	setFields(&resp.Header, add)
	return streamed
}

// Release implements httpcache.Exchange.
func (x *Exchange) Release(fields []httpcache.Field) {
	resp, _ := x.response()
	setFields(&resp.Header, fields)
}

// Reply implements httpcache.Exchange.
func (x *Exchange) Reply(a httpcache.Answer) {
	resp := &x.ctx.Response
	if x.ran {
		x.before.CopyTo(&resp.Header)
	}
	if x.ran || !x.state.prepared.copyTo(&resp.Header, &a, x.Request.Server()) {
		resp.SetStatusCode(a.Status)
		setFields(&resp.Header, a.Fields, a.Extra)
	}
	if a.NoBody {
		resp.ResetBody() // fasthttp leaves a HEAD's length as it is set
	} else {
		x.setBody(resp, a.Body)
	}
}
