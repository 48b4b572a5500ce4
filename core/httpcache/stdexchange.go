package httpcache

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
)

// StdExchange is the part of an Exchange that frameworks on net/http share. An
// adapter embeds it and adds Param, Run and Detach.
type StdExchange struct {
	Writer  http.ResponseWriter // where answers go
	Request *http.Request
	Capture *Writer // of the run under way

	frozen http.Header
}

// Line implements Exchange.
func (x *StdExchange) Line() Line {
	r := x.Request
	l := Line{
		Method: r.Method, Scheme: "http", Host: r.Host,
		Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, BareQuery: r.URL.ForceQuery && r.URL.RawQuery == "",
		HasBody: r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody,
	}
	switch {
	case r.URL.Scheme == "http", r.URL.Scheme == "https": // set by a middleware that knows the proxy in front
		l.Scheme = r.URL.Scheme
	case r.TLS != nil:
		l.Scheme = "https"
	}
	if t := r.RequestURI; t != "" && !sameTarget(t, &l) {
		l.Original = t
	}
	return l
}

// sameTarget reports whether the target on the wire is the path and query that
// the handler sees. A target in absolute form is another one: the handler can
// tell.
func sameTarget(target string, l *Line) bool {
	path, query, found := strings.Cut(target, "?")
	if found != (l.Query != "" || l.BareQuery) || query != l.Query {
		return false
	}
	return path == l.Path
}

// Values implements Exchange.
func (x *StdExchange) Values(name string) []string {
	if x.frozen != nil {
		return x.frozen[name]
	}
	return x.Request.Header[name]
}

// Freeze implements Freezer.
func (x *StdExchange) Freeze() { x.frozen = x.Request.Header.Clone() }

// Context implements Exchange.
func (x *StdExchange) Context() context.Context { return x.Request.Context() }

// Release implements Exchange.
func (x *StdExchange) Release(fields []Field) {
	if x.Capture != nil {
		x.Capture.release(fields)
	}
}

// Reply implements Exchange.
func (x *StdExchange) Reply(a Answer) {
	w := x.Writer
	if x.Capture != nil {
		x.Capture.discard()
	}
	h := w.Header()
	setFields(h, a.Fields, a.Extra)
	w.WriteHeader(a.Status)
	if !a.NoBody && len(a.Body) > 0 {
		_, _ = w.Write(a.Body) // a client that has gone is no error of the cache
	}
}

// setFields puts fields into a header. The header gets copies of the values: what
// is behind the cache may change them.
func setFields(h http.Header, lists ...[]Field) {
	n := 0
	for _, fields := range lists {
		for i := range fields {
			n += len(fields[i].Values)
		}
	}
	if n == 0 && len(lists[0]) == 0 {
		return
	}
	copies := make([]string, 0, n)
	for _, fields := range lists {
		copies = setInto(h, fields, copies)
	}
}

func setInto(h http.Header, fields []Field, copies []string) []string {
	for i := range fields {
		f := &fields[i]
		old, there := h[f.Name]
		switch {
		case f.Mode == Absent && there:
		case f.Mode == Remove:
			delete(h, f.Name)
		case f.Mode == Append && there:
			h[f.Name] = append(old[:len(old):len(old)], f.Values...)
		case f.Values == nil: // net/http's way to suppress a field of its own
			h[f.Name] = nil
		default:
			from := len(copies)
			copies = append(copies, f.Values...)
			h[f.Name] = copies[from:len(copies):len(copies)]
		}
	}
	return copies
}

// AskedBy returns the request that the handler is to see: the same one, or a copy
// with the capture's conditions in place of its own.
func (c *Capture) AskedBy(r *http.Request) *http.Request {
	if c.Conditions == nil {
		return r
	}
	again := *r
	again.Header = r.Header.Clone()
	for _, name := range conditionalFields {
		again.Header.Del(name)
	}
	for _, f := range c.Conditions {
		again.Header[f.Name] = f.Values
	}
	return &again
}

// DetachRequest returns a copy of the request for a background refresh: without
// content, and without what would make its response partial or conditional.
func DetachRequest(ctx context.Context, r *http.Request) *http.Request {
	c := r.Clone(ctx)
	c.Method = http.MethodGet
	c.Body = http.NoBody
	c.ContentLength = 0
	for _, name := range conditionalFields {
		c.Header.Del(name)
	}
	return c
}

// Nowhere is a ResponseWriter whose answer goes nowhere.
type Nowhere struct{ header http.Header }

// NewNowhere returns a Nowhere.
func NewNowhere() *Nowhere { return &Nowhere{make(http.Header)} }

// Header implements http.ResponseWriter.
func (n *Nowhere) Header() http.Header { return n.header }

// Write implements http.ResponseWriter.
func (n *Nowhere) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (n *Nowhere) WriteHeader(int) {}

// Flush implements http.Flusher: a handler in the background flushes as it does in
// front of a client.
func (n *Nowhere) Flush() {}

// Hijack implements http.Hijacker: there is no connection.
func (n *Nowhere) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, http.ErrNotSupported
}

// CloseNotify implements http.CloseNotifier, which Gin's streams insist on: there
// is no client that could go away.
func (n *Nowhere) CloseNotify() <-chan bool { return nil }
