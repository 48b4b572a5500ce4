package httpcache

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// StdExchange is the part of an Exchange that frameworks on net/http share. An
// adapter embeds it and adds Param, Run and Detach.
type StdExchange struct {
	Writer  http.ResponseWriter // where answers go
	Request *http.Request
	Capture *Writer // of the run under way

	snapshot http.Header
	handled  bool // by the handlers behind the middleware
	replied  bool
	values   []string // memory for the values of answers, of which no part is used twice
}

// Begin prepares an exchange for a request. The exchange is new or has been ended.
func (x *StdExchange) Begin(w http.ResponseWriter, r *http.Request) { x.Writer, x.Request = w, r }

// End ends an exchange whose request has been answered, and reports whether the exchange may
// serve another request. That is so after an answer from the store: a handler may keep what
// it was given.
func (x *StdExchange) End() (reusable bool) {
	if !x.replied || x.handled {
		return false
	}
	*x = StdExchange{values: x.values}
	return true
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
	if t := r.RequestURI; t != "" && !l.HasTarget(t) {
		l.Original = t
	}
	l.root(r)
	l.Lacks = ^x.Fields()
	return l
}

// root gives a path its slash that http.StripPrefix has taken with the prefix. The target
// as it came tells it from one that had the slash.
func (l *Line) root(r *http.Request) {
	if strings.HasPrefix(l.Path, "/") || l.Path == "*" || l.Method == http.MethodConnect {
		return
	}
	if l.Original = r.RequestURI; l.Original == "" {
		l.Original = "./" + l.Path
	}
	l.Path = "/" + l.Path
}

// Values implements Exchange.
func (x *StdExchange) Values(name string) []string {
	if x.snapshot != nil {
		return x.snapshot[name]
	}
	return x.Request.Header[name]
}

// Fields implements FieldReporter.
func (x *StdExchange) Fields() (set FieldSet) {
	header := x.Request.Header
	if x.snapshot != nil {
		header = x.snapshot
	}
	for name := range header {
		set.Add(name)
	}
	return set
}

// HasClientCertificate implements FieldReporter.
func (x *StdExchange) HasClientCertificate() bool {
	return x.Request.TLS != nil && len(x.Request.TLS.PeerCertificates) > 0
}

// SnapshotFields implements FieldSnapshotter.
func (x *StdExchange) SnapshotFields() { x.snapshot = x.Request.Header.Clone() }

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
	encodes := len(h["Content-Encoding"]) > 0 // middleware in front does, and says so
	var length []Field
	if !a.NoBody && !encodes && len(a.Body) > maxImplicitLength {
		length = a.length.of(len(a.Body))
	}
	x.setFields(h, a.distinct && len(h) == 0, a.Fields, a.Extra, length)
	x.replied = true
	w.WriteHeader(a.Status)
	if !a.NoBody && len(a.Body) > 0 {
		_, _ = w.Write(a.Body) // a client that has gone is no error of the cache
	}
}

// maxImplicitLength is the most content whose length net/http finds out by itself, as the
// handler has returned: a header has one field less then.
const maxImplicitLength = 2 << 10

// lengthField states the length of content, where nothing has stated it, as it was made
// for all answers with content of this length.
type lengthField struct {
	length int
	fields []Field
}

func newLengthField(n int) *lengthField {
	f := contentLength(n)
	f.Mode = Absent
	return &lengthField{n, []Field{f}}
}

// of returns the field for content of length n.
func (l *lengthField) of(n int) []Field {
	if l == nil || l.length != n {
		l = newLengthField(n)
	}
	return l.fields
}

// stateLength states the length of the content that follows, where the server would
// not.
func stateLength(h http.Header, n int) {
	if n <= maxImplicitLength {
		return
	}
	if _, there := h["Content-Length"]; !there {
		h["Content-Length"] = []string{strconv.Itoa(n)}
	}
}

// setFields puts fields into a header. The header gets copies of the values: middleware
// outside may change them.
func setFields(h http.Header, lists ...[]Field) {
	copies := make([]string, 0, countValues(lists))
	for _, fields := range lists {
		copies = setInto(h, fields, copies, false)
	}
}

// setFields is the function setFields with memory of the exchange. alone says that no
// field of the lists meets another one of its name.
func (x *StdExchange) setFields(h http.Header, alone bool, lists ...[]Field) {
	copies := x.room(countValues(lists))
	for _, fields := range lists {
		copies = setInto(h, fields, copies, alone)
	}
}

func countValues(lists [][]Field) (n int) {
	for _, fields := range lists {
		for i := range fields {
			n += len(fields[i].Values)
		}
	}
	return n
}

// roomOfAnswers is how many values an exchange allocates memory for at once. The memory is
// the garbage collector's when the headers of all answers that share it are.
const roomOfAnswers = 128

// room returns memory for n values that nothing else uses.
func (x *StdExchange) room(n int) []string {
	if n > len(x.values) {
		x.values = make([]string, max(n, roomOfAnswers))
	}
	room := x.values[:0:n]
	x.values = x.values[n:]
	return room
}

// setInto puts copies of fields into a header. Their values are appended to copies, which
// has room for them.
func setInto(h http.Header, fields []Field, copies []string, alone bool) []string {
	for i := range fields {
		f := &fields[i]
		if (alone || f.Mode == Set) && len(f.Values) == 1 { // as nearly all
			copies = append(copies, f.Values[0])
			n := len(copies)
			h[f.Name] = copies[n-1 : n : n]
			continue
		}
		var old []string
		there := false
		if f.Mode != Set { // what is set is not looked for
			old, there = h[f.Name]
		}
		switch {
		case f.Mode == Absent && there:
		case f.Mode == Remove:
			delete(h, f.Name)
		case f.Mode == Join && len(old) > 0:
			h[f.Name] = JoinList(old, f)
		case f.Mode == Merge && there:
			h[f.Name] = MergeValues(old, f.Values)
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

// MergeValues returns values with those added that it lacks.
func MergeValues(old, values []string) []string {
	merged := old[:len(old):len(old)]
	for _, v := range values {
		if !slices.Contains(old, v) {
			merged = append(merged, v)
		}
	}
	return merged
}

// Before implements OuterReporter.
func (x *StdExchange) Before(name string) []string {
	if x.Capture != nil {
		return canonical(x.Capture.before)[name]
	}
	return x.Writer.Header()[name]
}

// Outer implements OuterReporter.
func (x *StdExchange) Outer() Outer { return OuterOf(x.Writer) }

// ReleaseHeader implements HeaderSender.
func (x *StdExchange) ReleaseHeader(fields []Field) SentHeader {
	x.Capture.releaseHeader(fields)
	return sentHeader{x.Writer}
}

// ReplyHeader implements HeaderSender.
func (x *StdExchange) ReplyHeader(a Answer) SentHeader {
	x.Capture.replyHeader(a)
	return sentHeader{x.Writer}
}

// sentHeader is the header of a writer as it is.
type sentHeader struct{ w http.ResponseWriter }

// Values implements SentHeader.
func (h sentHeader) Values(name string) []string { return canonical(h.w.Header())[name] }

// Handle has the handlers behind the middleware answer the request, once, with ctx as
// its context. They see a copy: c says which conditions it has, and what they have parsed
// of it is handed back, so that the server removes the files of an upload.
func (x *StdExchange) Handle(ctx context.Context, c *Capture, handle func(*http.Request)) {
	x.handled = true
	asked := x.Request.WithContext(ctx)
	if c != nil && c.Conditions != nil {
		asked.Header = askedBy(c, x.Request.Header)
	}
	defer handBack(x.Request, asked)
	if !c.stores() || guarding(ctx) != nil || ctx.Value(http.ServerContextKey) != nil {
		handle(asked)
		return
	}
	s := &serverless{Context: ctx}
	served := asked.WithContext(s)
	defer handBack(asked, served)
	defer func() {
		if !s.asked.Load() {
			return
		}
		if v := recover(); v == http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
			c.AbortStatus = http.StatusBadGateway
		} else if v != nil {
			panic(v)
		}
	}()
	handle(served)
}

// askedBy returns a request's header with the capture's conditions in place of its own.
func askedBy(c *Capture, header http.Header) http.Header {
	h := header.Clone()
	for _, name := range conditionalFields {
		h.Del(name)
	}
	for _, f := range c.Conditions {
		h[f.Name] = f.Values
	}
	return h
}

// handBack gives a request what a handler has parsed of a copy, as it would have it if
// there were no copy. A server removes the files of an upload of its own request only.
func handBack(to, from *http.Request) {
	to.Form, to.PostForm, to.MultipartForm, to.Pattern = from.Form, from.PostForm, from.MultipartForm, from.Pattern
}

// serverless is the context of a request that no http.Server has accepted (FastCGI, a
// lambda, another handler's sub-request). A handler that would break its answer off there
// (httputil.ReverseProxy, if the upstream dies in the middle of a body) looks for the
// server first, and without one returns as if the answer were whole. Here it finds one, and
// breaks off; the break is then ended where it would have ended without a cache.
type serverless struct {
	context.Context
	asked atomic.Bool
}

// noServer is what serverless shows as the server.
var noServer = new(http.Server) //nolint:gochecknoglobals // a constant

// Value implements context.Context.
func (s *serverless) Value(key any) any {
	switch key {
	case http.ServerContextKey:
		s.asked.Store(true)
		return noServer
	case serverlessKey{}:
		return s
	}
	return s.Context.Value(key)
}

type serverlessKey struct{}

func guarding(ctx context.Context) *serverless {
	s, _ := ctx.Value(serverlessKey{}).(*serverless)
	return s
}

// ServerOf returns the server that has accepted the request of a context, or nil.
func ServerOf(ctx context.Context) *http.Server {
	if guarding(ctx) != nil {
		return nil
	}
	server, _ := ctx.Value(http.ServerContextKey).(*http.Server)
	return server
}

// DetachRequest returns a copy of the request for a background refresh: without
// content, unless that is what it asks for, and without what would make its response
// partial or conditional.
func DetachRequest(ctx context.Context, r *http.Request) *http.Request {
	c := r.Clone(ctx)
	if q, ok := r.Body.(*queryContent); ok { // a QUERY, or a POST that reads
		c.Body, c.ContentLength, c.TransferEncoding = q.again(), int64(len(q.content)), nil
	} else {
		if r.Method != methodQuery {
			c.Method = http.MethodGet
		}
		c.Body, c.ContentLength = http.NoBody, 0
	}
	for _, name := range conditionalFields {
		c.Header.Del(name)
	}
	return c
}
