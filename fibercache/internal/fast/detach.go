package fast

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

// refreshKey is the user value by which a background refresh, on its way through
// the app, brings its context.
type refreshKey struct{}

// Detach implements httpcache.Exchange. The copy goes through the app as the
// request did: rewritten from its original target, over a connection that looks
// like the client's.
func (x *Exchange) Detach() func(context.Context, func(httpcache.Exchange)) {
	from, server := x.ctx, x.Request.Server()
	fctx := newContext(connLike(from), server)
	req := &fctx.Request
	from.Request.CopyTo(req)
	if x.contentRead { // of a QUERY, or a POST that reads
		req.SetBodyRaw(bytes.Clone(from.Request.Body()))
	} else {
		req.ResetBody()
		req.Header.SetMethod(http.MethodGet)
	}
	req.SetRequestURI(string(req.Header.RequestURI()))
	httpcache.DropConditions(func(name string) { drop(&req.Header, name) })
	return func(ctx context.Context, _ func(httpcache.Exchange)) {
		defer endContext(fctx)
		fctx.SetUserValue(refreshKey{}, ctx)
		server.Handler(fctx)
	}
}

// newContext returns the context of a request that comes from no client.
func newContext(c net.Conn, server *fasthttp.Server) *fasthttp.RequestCtx {
	fctx := new(fasthttp.RequestCtx)
	fctx.Init2(c, server.Logger, true)
	fctx.Response.Header.SetNoDefaultContentType(server.NoDefaultContentType)
	if server.DisableHeaderNamesNormalizing {
		fctx.Response.Header.DisableNormalizing()
	}
	return fctx
}

func endContext(fctx *fasthttp.RequestCtx) {
	fctx.ResetUserValues()
	fctx.Request.Reset()
	fctx.Response.Reset() // an unread stream is closed
}

// drop removes a field also where names stay as they came, in every spelling.
func drop(h *fasthttp.RequestHeader, name string) {
	var spelled []string
	h.VisitAll(func(key, _ []byte) {
		if strings.EqualFold(string(key), name) {
			spelled = append(spelled, string(key))
		}
	})
	for _, name := range spelled {
		h.Del(name)
	}
}

// continueRefresh gives a request that is a background refresh its context.
func (x *Exchange) continueRefresh() {
	if ctx, ok := x.ctx.UserValue(refreshKey{}).(context.Context); ok {
		x.ctx.RemoveUserValue(refreshKey{}) // what is behind has it from the context
		x.Request.SetContext(refreshContext{ctx, x.Request.Context()})
	}
}

// refreshContext is the context of a background refresh: its own end, and the
// values that outer middleware has set for the copy. Those of the request itself
// are out of reach: behind them may be its RequestCtx, which serves another one now.
type refreshContext struct {
	context.Context
	values context.Context
}

// Value implements context.Context.
func (r refreshContext) Value(key any) any {
	if name, ok := key.(string); ok && strings.HasPrefix(name, "github.com/larderhq/larder/") && name != httpcache.ContextKey {
		return r.Context.Value(key)
	}
	return r.values.Value(key)
}

var _ net.Conn = conn{}

// conn stands for the connection of a request that has ended.
type conn struct {
	local, remote net.Addr
}

func (c conn) LocalAddr() net.Addr  { return c.local }
func (c conn) RemoteAddr() net.Addr { return c.remote }

// A handler may set deadlines of its client's connection, as with a client. Reading and
// writing fail.
func (conn) SetDeadline(time.Time) error      { return nil }
func (conn) SetReadDeadline(time.Time) error  { return nil }
func (conn) SetWriteDeadline(time.Time) error { return nil }
func (conn) Close() error                     { return nil }
func (conn) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (conn) Write([]byte) (int, error)        { return 0, net.ErrClosed }

type tlsConn struct {
	conn
	state *tls.ConnectionState
}

// Handshake and ConnectionState are how fasthttp knows a TLS connection.
func (tlsConn) Handshake() error                       { return nil }
func (c tlsConn) ConnectionState() tls.ConnectionState { return *c.state }

func connLike(fctx *fasthttp.RequestCtx) net.Conn {
	c := conn{local: fctx.LocalAddr(), remote: fctx.RemoteAddr()}
	if state := fctx.TLSConnectionState(); state != nil {
		return tlsConn{c, state}
	}
	return c
}

// outlasting returns a context that ends with ctx, which the engine ends when a run
// has been dealt with; unless streams is called: then it ends when the response has
// been sent, or with outer, as it would without a cache.
func outlasting(ctx, outer context.Context) (run context.Context, streams func(*fasthttp.RequestCtx)) {
	if ctx.Done() == outer.Done() {
		return ctx, func(*fasthttp.RequestCtx) {}
	}
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	return runContext{lasting, outer}, func(fctx *fasthttp.RequestCtx) {
		stop()
		stop := context.AfterFunc(outer, cancel)
		fctx.SetUserValue(sentKey{}, onSent(func() { stop(); cancel() }))
	}
}

// runContext is a handler's context, with the deadline and the reason to end that
// outer middleware has given it.
type runContext struct {
	context.Context
	outer context.Context
}

// Deadline implements context.Context.
func (r runContext) Deadline() (time.Time, bool) { return r.outer.Deadline() }

// Err implements context.Context.
func (r runContext) Err() error {
	err := r.Context.Err()
	if why := r.outer.Err(); err != nil && why != nil {
		return why
	}
	return err
}

// onSent is a user value: fasthttp closes it when the response has been sent.
type onSent func()

// Close implements io.Closer.
func (f onSent) Close() error {
	f()
	return nil
}

type sentKey struct{}
