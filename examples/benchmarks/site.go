package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core"
)

// ttl is the lifetime in every cache, beyond the end of a run.
const ttl = time.Hour

// handlerFields returns the fields that the cached handlers set.
func handlerFields() [][2]string {
	return [][2]string{
		{"Content-Type", "application/json; charset=utf-8"},
		{"Cache-Control", "max-age=3600"},
		{"Content-Language", "en"},
		{"X-Content-Type-Options", "nosniff"},
		{"Link", "</style.css>; rel=preload"},
		{"Referrer-Policy", "no-referrer"},
	}
}

// site is the content that a contender serves: one page, and the probes' pages.
type site struct {
	fields [][2]string
	body   []byte
	runs   atomic.Int64 // of the page's handler
	cache  *core.Cache  // of Larder

	sessions atomic.Int64
	herd     atomic.Int64 // runs of the slow page's handler
}

func newSite(size int, fields [][2]string) *site {
	return &site{fields: fields, body: bytes.Repeat([]byte("x"), size)}
}

// open opens Larder's cache.
func (s *site) open() (err error) {
	s.cache, err = core.New(core.Options{Classes: core.Classes{"product": {TTL: ttl}}})
	return err
}

// close closes Larder's cache, where there is one.
func (s *site) close() error {
	if s.cache == nil {
		return nil
	}
	return s.cache.Close()
}

// content is the answer of a probe's page.
type content struct {
	status int
	fields [][2]string
	body   string
}

// probed returns the content of a probe's page.
func (s *site) probed(name, query, language string) content {
	c := content{status: http.StatusOK, fields: handlerFields(), body: "page"}
	switch name {
	case "status":
		c.status = http.StatusNonAuthoritativeInfo
	case "lines":
		c.fields = append(c.fields, [2]string{"Link", "</app.js>; rel=preload"})
	case "query":
		c.body = query
	case "vary":
		c.fields = append(c.fields, [2]string{"Vary", "Accept-Language"})
		c.body = language
	case "slow":
		s.herd.Add(1)
		time.Sleep(100 * time.Millisecond)
	case "cookie":
		c.fields = append(c.fields, [2]string{"Set-Cookie", fmt.Sprint("session=", s.sessions.Add(1))})
	}
	return c
}

// answer is an answer as a client sees it.
type answer struct {
	status int
	fields http.Header
	body   []byte
}

// app is a contender's handler.
type app interface {
	// client returns a function that requests the target again and again, for the use of
	// one goroutine.
	client(target string) func()
	// get requests a target once. The fields are pairs of names and values.
	get(target string, fields ...string) answer
}

// pageTarget is the target of the measured page.
const pageTarget = "/p/42?page=1"

// netApp is an app on net/http.
type netApp struct{ http.Handler }

// discard is a ResponseWriter that keeps no body.
type discard struct{ header http.Header }

func (w *discard) Header() http.Header         { return w.header }
func (w *discard) WriteHeader(int)             {}
func (w *discard) Write(p []byte) (int, error) { return len(p), nil }

// recorded is a ResponseWriter that keeps the answer.
type recorded struct {
	answer
	sent bool
}

func (w *recorded) Header() http.Header { return w.fields }

func (w *recorded) WriteHeader(status int) {
	if !w.sent {
		w.sent, w.status = true, status
	}
}

func (w *recorded) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}

func newRequest(target string, fields []string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, "http://shop.example"+target, http.NoBody)
	if err != nil {
		panic(err) // the targets are constants
	}
	r.RequestURI = target
	r.Header.Set("Accept-Encoding", "gzip")
	r.Header.Set("User-Agent", "bench")
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	return r
}

func (a netApp) client(target string) func() {
	r := newRequest(target, nil)
	w := new(discard)
	return func() {
		w.header = make(http.Header) // as net/http's server does for each request
		a.ServeHTTP(w, r)
	}
}

func (a netApp) get(target string, fields ...string) answer {
	w := &recorded{answer: answer{fields: make(http.Header)}}
	a.ServeHTTP(w, newRequest(target, fields))
	w.fields = maps.Clone(w.fields) // a cache may have kept the map
	return w.answer
}

// fastApp is an app on fasthttp.
type fastApp struct {
	handler fasthttp.RequestHandler
	server  *fasthttp.Server
}

// newContext returns a context of the server of the app, as the server makes it for a connection.
// Larder copies a long body for any other context.
func (a fastApp) newContext(target string, fields []string) *fasthttp.RequestCtx {
	ctx := &fasthttp.RequestCtx{}
	server := reflect.ValueOf(ctx).Elem().FieldByName("s")
	*(**fasthttp.Server)(unsafe.Pointer(server.UnsafeAddr())) = a.server
	h := &ctx.Request.Header
	h.SetMethod(http.MethodGet)
	ctx.Request.SetRequestURI(target)
	h.SetHost("shop.example")
	h.Set("Accept-Encoding", "gzip")
	h.Set("User-Agent", "bench")
	for i := 0; i < len(fields); i += 2 {
		h.Set(fields[i], fields[i+1])
	}
	return ctx
}

func (a fastApp) client(target string) func() {
	ctx := a.newContext(target, nil)
	return func() {
		ctx.Response.Reset()
		a.handler(ctx)
	}
}

func (a fastApp) get(target string, fields ...string) answer {
	ctx := a.newContext(target, fields)
	a.handler(ctx)
	got := answer{ctx.Response.StatusCode(), make(http.Header), bytes.Clone(ctx.Response.Body())}
	for k, v := range ctx.Response.Header.All() {
		got.fields.Add(string(k), string(v))
	}
	got.fields.Del("Content-Length") // fasthttp states it as it sends
	return got
}

// fieldsOf returns the fields of an answer, for a handler that is to write the same.
func fieldsOf(a answer) (list [][2]string) {
	for _, name := range slices.Sorted(maps.Keys(a.fields)) {
		list = append(list, [2]string{name, strings.Join(a.fields[name], ", ")})
	}
	return list
}
