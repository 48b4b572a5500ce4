package adaptertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/tier"
)

// transport is how a site is reached.
type transport int

const (
	overLoopback transport = iota
	overTLS
	overMutualTLS // with a certificate of the client's
	inMemory      // in a bubble
)

// site is one cache and one app, served. The app is built at the first request.
type site struct {
	testing.TB
	f     Framework
	cache *core.Cache
	log   *logged
	app   App
	srv   Server // once it is served
	by    transport
	dial  func() (net.Conn, error)
	mu    sync.Mutex
	gates []*gate
}

// newSite makes a site whose cache has the suite's classes. The test's end
// closes everything.
func newSite(t testing.TB, f Framework, by transport) *site {
	s := &site{TB: t, f: f, by: by, log: &logged{}}
	s.open(core.Options{Classes: classes()})
	return s
}

// open replaces the site's cache, before its first request.
func (s *site) open(o core.Options) {
	s.Helper()
	o.Logger = slog.New(s.log)
	if s.f.Shared && o.Remote == nil {
		server := memtier.New(memtier.Config{})
		s.Cleanup(server.Close)
		o.Remote = server.Tier("site")
		if s.by != inMemory {
			s.unhurried(&o)
		}
	}
	cache, err := core.New(o)
	require.NoError(s, err)
	if s.cache != nil {
		require.NoError(s, s.cache.Close())
	}
	s.cache = cache
	s.Cleanup(func() { require.NoError(s, cache.Close()) })
}

// unhurried gives a cache on the machine's clock enough time for a busy machine: a request's
// budget, the legality of entries, and the leases last long. No case over sockets then
// depends on how soon a goroutine runs. The cases in a bubble show how these times end.
func (s *site) unhurried(o *core.Options) {
	o.Remote = unhurried{o.Remote.(tier.Tier)}
	o.RemoteBudget, o.MaxStaleness = patience, patience
}

// unhurried is a tier with long leases.
type unhurried struct{ tier.Tier }

func (u unhurried) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	ses, err := u.Tier.Open(ctx, want)
	return unhurriedSession{ses}, err
}

type unhurriedSession struct{ tier.Session }

func (s unhurriedSession) Acquire(ctx context.Context, name, seen string, tags []string, d time.Duration) (tier.Lease, error) {
	return s.Session.Acquire(ctx, name, seen, tags, max(d, patience))
}

func (s unhurriedSession) Extend(ctx context.Context, l tier.Lease, d time.Duration) (bool, error) {
	return s.Session.Extend(ctx, l, max(d, patience))
}

// classes returns the classes of the suite, each named after its settings.
func classes() core.Classes {
	const ttl = time.Hour
	http := func(p core.HTTPPolicy) core.Class { return core.Class{TTL: ttl, HTTP: p} }
	return core.Classes{
		"":               {}, // stores only responses that state a lifetime
		"hour":           {TTL: ttl},
		"minute":         {TTL: time.Minute},
		"second":         {TTL: time.Second},
		"half-second":    {TTL: 500 * time.Millisecond},
		"stale":          {TTL: time.Minute, StaleWhileRevalidate: time.Minute},
		"spare":          {TTL: time.Minute, StaleIfError: time.Minute},
		"negative":       {TTL: ttl, NegativeTTL: time.Minute},
		"jitter":         {TTL: time.Minute, Jitter: 0.5},
		"all-windows":    {TTL: time.Minute, StaleWhileRevalidate: time.Minute, StaleIfError: time.Minute, NegativeTTL: 10 * time.Second},
		"replica-lag":    {TTL: ttl, ReplicaLag: time.Minute},
		"load-timeout":   {TTL: time.Minute, StaleWhileRevalidate: time.Minute, LoadTimeout: 10 * time.Second},
		"small":          {TTL: ttl, MaxEntryBytes: smallBytes},
		"theme-cookie":   http(core.HTTPPolicy{Cookies: []string{"theme"}}),
		"no-cookie":      http(core.HTTPPolicy{Cookies: []string{}}),
		"query-q":        http(core.HTTPPolicy{Query: []string{"q"}}),
		"ignore-query":   http(core.HTTPPolicy{IgnoreQuery: []string{"gclid", "utm_*"}}),
		"no-query":       http(core.HTTPPolicy{Query: []string{}}),
		"query-order":    http(core.HTTPPolicy{QueryOrder: true}),
		"query-q-r":      http(core.HTTPPolicy{Query: []string{"q", "r"}, QueryOrder: true}),
		"headers":        http(core.HTTPPolicy{Headers: []string{"x-tenant", "X-Region"}}),
		"two-variants":   http(core.HTTPPolicy{MaxVariants: 2}),
		"no-etag":        http(core.HTTPPolicy{NoETag: true}),
		"no-directives":  http(core.HTTPPolicy{RequestDirectives: []string{}}),
		"max-age-only":   http(core.HTTPPolicy{RequestDirectives: []string{"max-age"}}),
		"only-if-cached": {TTL: time.Minute, HTTP: core.HTTPPolicy{RequestDirectives: []string{"only-if-cached", "max-age", "max-stale", "no-cache"}}},
		"no-heuristic":   {HTTP: core.HTTPPolicy{NoHeuristic: true}},
		"set-cookie":     http(core.HTTPPolicy{AllowSetCookie: true}),
		"no-validation":  {TTL: time.Minute, HTTP: core.HTTPPolicy{NoValidation: true}},
		"by-key":         http(core.HTTPPolicy{Headers: []string{"x-api-key"}}),
		"own-credential": http(core.HTTPPolicy{Credentials: []string{"x-tenant-token"}}),
		"no-credentials": http(core.HTTPPolicy{Credentials: []string{}}),
		"encodings":      http(core.HTTPPolicy{Encodings: []string{"zstd", "gzip"}}),
	}
}

const (
	smallBytes = 1000 // MaxEntryBytes of the class "small"
	maxLoads   = core.DefaultMaxLoadsAfterError
)

// handle adds a route: handle("GET /p/{id}", h, uses...). GET routes answer HEAD
// in every framework.
func (s *site) handle(route string, h Handler, uses ...Use) {
	method, pattern, _ := strings.Cut(route, " ")
	s.app.Routes = append(s.app.Routes, Route{method, pattern, uses, h})
	if method == http.MethodGet && s.f.NoHeadOnGet {
		s.app.Routes = append(s.app.Routes, Route{http.MethodHead, pattern, uses, h})
	}
}

// changes changes a class of the cache in use.
func (s *site) changes(name string, change func(*core.Class)) {
	s.Helper()
	classes := s.cache.Options().Classes
	class := classes[name]
	change(&class)
	classes[name] = class
	require.NoError(s, s.cache.SetClasses(classes))
}

func (s *site) cached(class string, tags ...string) Use { return Cached{s.cache, class, tags} }

func (s *site) invalidates(tags ...string) Use { return Invalidates{Cache: s.cache, Tags: tags} }

// connect returns a connection to the app, which it starts if need be.
func (s *site) connect() (net.Conn, error) {
	s.mu.Lock()
	if s.dial == nil {
		s.serve()
	}
	dial := s.dial
	s.mu.Unlock()
	return dial()
}

func (s *site) serve() {
	srv := s.f.New(s, s.app)
	s.srv = srv
	var l net.Listener
	if s.by == inMemory {
		p := newPipes()
		l, s.dial = p, p.dial
	} else {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			s.Fatal(err)
		}
		s.dial = func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }
	}
	if s.by == overTLS || s.by == overMutualTLS {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate(s)}, ClientAuth: tls.RequestClientCert}) //nolint:gosec // as crypto/tls has it
		client := &tls.Config{InsecureSkipVerify: true}                                                                         //nolint:gosec // our own
		if s.by == overMutualTLS {
			client.Certificates = []tls.Certificate{certificate(s)}
		}
		plain := s.dial
		s.dial = func() (net.Conn, error) {
			conn, err := plain()
			if err != nil {
				return nil, err
			}
			return tls.Client(conn, client), nil
		}
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	s.Cleanup(func() {
		for _, g := range s.gates {
			g.open()
		}
		if err := srv.Close(); err != nil {
			s.Errorf("closing the server: %v", err)
		}
		if err := <-done; err != nil {
			s.Errorf("serving: %v", err)
		}
		if s.by == inMemory {
			time.Sleep(time.Minute) // a framework's own timers lapse (fasthttp's pool of workers sleeps 10s)
		}
	})
}

// another returns a site with the same cache and no routes.
func (s *site) another() *site {
	return &site{TB: s.TB, f: s.f, cache: s.cache, log: s.log, by: s.by}
}

// secured returns a site with the same cache and routes, over TLS.
func (s *site) secured() *site {
	return &site{TB: s.TB, f: s.f, cache: s.cache, log: s.log, app: s.app, by: overTLS}
}

// certified is secured, with a certificate of the client's.
func (s *site) certified() *site {
	c := s.secured()
	c.by = overMutualTLS
	return c
}

func certificate(t testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// gate holds handlers until it is opened, at the latest at the test's end.
type gate struct {
	open func()
	c    chan struct{}
}

func (s *site) gate() *gate {
	g := &gate{c: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.c) })
	s.gates = append(s.gates, g)
	return g
}

func (g *gate) wait() { <-g.c }

// patience is the time within which a condition must become true. In a bubble no time
// passes.
const patience = 10 * time.Second

// settles waits until cond holds. In a bubble it waits until all goroutines are blocked. A
// condition that does not hold then never will while the clock stands still.
func (s *site) settles(cond func() bool, what string) {
	s.Helper()
	if s.by == inMemory {
		synctest.Wait()
		if !cond() {
			s.Fatalf("everything is waiting, but not: %s", what)
		}
		return
	}
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			s.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// waiting waits until n requests wait for others' loads since the cache was made.
func (s *site) waiting(n int64) {
	s.Helper()
	s.settles(func() bool { return s.cache.Stats().Coalesced >= n }, "requests wait for a load under way")
	require.Equal(s, n, s.cache.Stats().Coalesced, "requests that waited")
}

func (s *site) invalidate(targets ...core.Target) {
	s.Helper()
	require.NoError(s, s.cache.Invalidate(context.Background(), targets...))
}

// logged collects what the cache logs.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Enabled(context.Context, slog.Level) bool { return true }
func (l *logged) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logged) WithGroup(string) slog.Handler            { return l }

func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r.Message)
	return nil
}

func (l *logged) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// pipes is a listener in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newPipes() *pipes {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	return p
}

func (p *pipes) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }
