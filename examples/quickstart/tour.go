package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/redisstore"
)

// tourSize is how many requests the tour makes.
type tourSize struct {
	hits    int // from which the time of a hit is taken
	clients int // that ask for one cold product concurrently
}

var fullTour = tourSize{hits: 200, clients: 1000}

// step is a line of the tour's table.
type step struct {
	what        string
	status      int
	cacheStatus string
	took        time.Duration
	queries     int64
	remark      string
}

// tourist is the tour's client. It talks to the shop over real sockets, as any
// other client does; only the count of queries it gets from inside.
type tourist struct {
	visitor
	queries  func() int64
	size     tourSize
	steps    []step
	failures []string
}

// visitor is a client of one server.
type visitor struct {
	base   string
	client *http.Client
}

// host is the Host of all requests: servers behind one name are one shop. The host is part of
// the key.
const host = "shop.example"

// reply is one response with its body read.
type reply struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

func (r reply) cacheStatus() string { return strings.Join(r.header.Values("Cache-Status"), ", ") }

// hit reports whether the response came out of the cache (RFC 9211 section 2.1).
func (r reply) hit() bool { return strings.Contains(r.cacheStatus(), "; hit") }

// price returns the price on a product's page.
func (r reply) price() (int64, error) {
	var p Product
	if err := json.Unmarshal(r.body, &p); err != nil {
		return 0, fmt.Errorf("product: status %d: %w", r.status, err)
	}
	return p.PriceCents, nil
}

// showTour serves the shop, takes the tour and prints it. With Redis there are two
// servers in two frameworks, each with its own cache. The error lists the broken promises.
func showTour(ctx context.Context, out io.Writer, adapter string, shop *Shop, client *redis.Client, namespace string) error {
	with := adapter
	if client != nil {
		with += " and " + another(adapter) + ", which share their cache over Redis"
	}
	fmt.Fprintf(out, "A cheese shop in SQLite, served by %s, and its own client over real sockets:\n\n", with)
	var t *tourist
	err := open(ctx, adapter, shop, client, namespace, func(ctx context.Context, first string, _ *core.Cache) (err error) {
		if client == nil {
			t, err = takeTour(ctx, first, shop.Queries, nil, fullTour)
			return err
		}
		return open(ctx, another(adapter), shop, client, namespace, func(ctx context.Context, second string, cache *core.Cache) (err error) {
			t, err = takeTour(ctx, first, shop.Queries, &sharing{
				adapters: [2]string{adapter, another(adapter)}, second: second, cache: cache, shop: shop,
				cut: func(ctx context.Context) (int, error) { return cutSubscribers(ctx, client, namespace) },
			}, fullTour)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("tour: %w", err)
	}
	t.print(out)
	fmt.Fprint(out, legend)
	if len(t.failures) > 0 {
		return fmt.Errorf("tour: not as promised:\n  %s", strings.Join(t.failures, "\n  "))
	}
	fmt.Fprintln(out, "\nEverything as promised.")
	return nil
}

// another returns another framework.
func another(adapter string) string {
	return adapters[(slices.Index(adapters, adapter)+1)%len(adapters)]
}

// open serves the shop on a free port, with a cache of its own, until do returns.
func open(ctx context.Context, adapter string, shop *Shop, client *redis.Client, namespace string,
	do func(ctx context.Context, base string, cache *core.Cache) error,
) (err error) {
	var options core.Options
	if client != nil {
		options.Remote = redisstore.New(client)
		options.Namespace = namespace
		options.RequireRemote = true // without it there is nothing to show
		// A thousand clients take the processors from both servers. By default a
		// server that has heard nothing from Redis for 50ms runs the handler.
		options.RemoteBudget = time.Second
	}
	cache, err := newCache(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	server, err := newServer(adapter, shop, cache)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return serve(ctx, server, listener, func(ctx context.Context) error {
		return do(ctx, "http://"+listener.Addr().String(), cache)
	})
}

const legend = `
hit: answered by the cache.  fwd=uri-miss, miss: the handler ran.  collapsed: waited for another's run of the
handler and shares its answer.  detail=streamed: not stored, passed through as it came.
`

// takeTour makes the requests and records the broken promises. Without a second server
// shared is nil.
func takeTour(ctx context.Context, base string, queries func() int64, shared *sharing, size tourSize) (*tourist, error) {
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	t := &tourist{
		visitor: visitor{base, &http.Client{Transport: transport, Timeout: time.Minute}},
		queries: queries,
		size:    size,
	}
	parts := []func(context.Context) error{t.reads, t.crowd, t.write, t.stream}
	if shared != nil {
		parts = append(parts, func(ctx context.Context) error { return t.share(ctx, shared) })
	}
	for _, part := range parts {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// reads shows a miss, a hit and a conditional request.
func (t *tourist) reads(ctx context.Context) error {
	before := t.queries()
	list, err := t.get(ctx, "/products", nil)
	if err != nil {
		return err
	}
	t.note("the list, asked for the first time", list, t.queries()-before, "")
	t.expect(list.status == http.StatusOK && !list.hit(), "the list is a miss at first: status %d, %q", list.status, list.cacheStatus())

	before = t.queries()
	miss, err := t.get(ctx, "/products/1", nil)
	if err != nil {
		return err
	}
	n := t.queries() - before
	t.note("product 1, the first time", miss, n, "")
	t.expect(miss.status == http.StatusOK && !miss.hit(), "product 1 is a miss at first: status %d, %q", miss.status, miss.cacheStatus())
	t.expect(n == 1, "a miss is one query: %d", n)

	before = t.queries()
	hits := make([]reply, t.size.hits)
	for i := range hits {
		if hits[i], err = t.get(ctx, "/products/1", nil); err != nil {
			return err
		}
		t.expect(hits[i].hit(), "product 1 is a hit when asked for again: %q", hits[i].cacheStatus())
		t.expect(bytes.Equal(hits[i].body, miss.body), "a hit has the bytes of the miss: %q", hits[i].body)
	}
	n = t.queries() - before
	slices.SortFunc(hits, func(a, b reply) int { return cmp.Compare(a.took, b.took) })
	median := hits[len(hits)/2]
	t.note(fmt.Sprintf("product 1 again (median of %d)", t.size.hits), median, n,
		fmt.Sprintf("%.0f times as fast", float64(miss.took)/float64(median.took)))
	t.expect(n == 0, "hits are no queries: %d", n)

	before = t.queries()
	unchanged, err := t.get(ctx, "/products/1", http.Header{"If-None-Match": {median.header.Get("ETag")}})
	if err != nil {
		return err
	}
	n = t.queries() - before
	t.note("product 1, if it has changed (ETag)", unchanged, n, fmt.Sprintf("%d bytes instead of %d", len(unchanged.body), len(miss.body)))
	t.expect(unchanged.status == http.StatusNotModified, "a conditional request is answered 304: status %d", unchanged.status)
	t.expect(n == 0, "a 304 is no query: %d", n)
	return nil
}

// crowd shows that concurrent requests for a cold product cost one query.
func (t *tourist) crowd(ctx context.Context) error {
	return t.crowdAt(ctx, "product 2, cold, %d clients at once", "/products/2", t.base)
}

func (t *tourist) crowdAt(ctx context.Context, what, path string, bases ...string) error {
	before := t.queries()
	replies, took, err := atOnce(ctx, t.size.clients, path, bases...)
	if err != nil {
		return err
	}
	n := t.queries() - before
	collapsed, hits := 0, 0
	for _, r := range replies {
		t.expect(r.status == http.StatusOK && bytes.Equal(r.body, replies[0].body), "all of the crowd get the product: status %d, %q", r.status, r.body)
		switch {
		case strings.Contains(r.cacheStatus(), "; collapsed"):
			collapsed++
		case r.hit():
			hits++
		}
	}
	t.steps = append(t.steps, step{
		what: fmt.Sprintf(what, t.size.clients), status: replies[0].status,
		cacheStatus: fmt.Sprintf("%d miss, %d collapsed, %d hit", len(replies)-collapsed-hits, collapsed, hits), took: took, queries: n,
		remark: fmt.Sprintf("%d queries saved", int64(t.size.clients)-n),
	})
	t.expect(n == 1, "%d clients on a cold product are one query: %d", t.size.clients, n)
	return nil
}

// write shows that no request after an update reads the value before it.
func (t *tourist) write(ctx context.Context) error {
	old, err := t.price(ctx)
	if err != nil {
		return err
	}
	price := old + 200
	before := t.queries()
	put, err := t.put(ctx, "/products/1", price)
	if err != nil {
		return err
	}
	t.note("product 1 gets a new price (PUT)", put, t.queries()-before, fmt.Sprintf("%s -> %s (demo prices)", money(old), money(price)))
	t.expect(put.status == http.StatusNoContent, "the update succeeds: status %d, %q", put.status, put.body)

	before = t.queries()
	fresh, err := t.get(ctx, "/products/1", nil)
	if err != nil {
		return err
	}
	got, err := fresh.price()
	if err != nil {
		return err
	}
	n := t.queries() - before
	t.note("product 1 after it", fresh, n, "the new price: "+money(got))
	t.expect(got == price && !fresh.hit(), "the read after the update has the new price %d: %d, %q", price, got, fresh.cacheStatus())
	t.expect(n == 1, "the read after the update is one query: %d", n)

	before = t.queries()
	list, err := t.get(ctx, "/products", nil)
	if err != nil {
		return err
	}
	var catalog Catalog
	if err := json.Unmarshal(list.body, &catalog); err != nil {
		return fmt.Errorf("products: %w", err)
	}
	if len(catalog.Products) == 0 {
		return errors.New("products: the list is empty")
	}
	listed := catalog.Products[0].PriceCents
	t.note("the list after it", list, t.queries()-before, "the new price: "+money(listed))
	t.expect(listed == price && !list.hit(), "the list after the update has the new price %d: %d, %q", price, listed, list.cacheStatus())
	return nil
}

// price returns the price of product 1.
func (t *tourist) price(ctx context.Context) (int64, error) {
	r, err := t.get(ctx, "/products/1", nil)
	if err != nil {
		return 0, err
	}
	return r.price()
}

// stream shows that a flushed part reaches the client at once, although the route is
// registered with the cache like the others.
func (t *tourist) stream(ctx context.Context) error {
	before, start := t.queries(), time.Now()
	req, err := request(ctx, http.MethodGet, t.base+"/stream", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var arrived []time.Duration
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			arrived = append(arrived, time.Since(start))
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, took: time.Since(start)}
	s := t.note("a stream of events", r, t.queries()-before, "")
	t.expect(len(arrived) == streamEvents, "the stream has %d events: %d", streamEvents, len(arrived))
	t.expect(!r.hit(), "the stream is not cached: %q", r.cacheStatus())
	if len(arrived) < 2 {
		return nil
	}
	first, last := arrived[0], arrived[len(arrived)-1]
	s.remark = fmt.Sprintf("%d events, one by one: the first after %s, the last after %s", len(arrived), short(first), short(last))
	// Had something held the stream back, all would have come at its end. Half of
	// the expected time leaves room for a busy machine.
	spread := (streamEvents - 1) * streamInterval / 2
	t.expect(last-first >= spread, "the events of the stream arrive one by one: first after %v, last after %v", first, last)
	return nil
}

// note adds a line to the table.
func (t *tourist) note(what string, r reply, queries int64, remark string) *step {
	t.steps = append(t.steps, step{what, r.status, r.cacheStatus(), r.took, queries, remark})
	return &t.steps[len(t.steps)-1]
}

// expect notes a failure unless ok; format says what was promised, and what
// happened instead. The same promise broken many times is noted once.
func (t *tourist) expect(ok bool, format string, args ...any) {
	if ok {
		return
	}
	if failure := fmt.Sprintf(format, args...); !slices.Contains(t.failures, failure) {
		t.failures = append(t.failures, failure)
	}
}

func (t *tourist) print(out io.Writer) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "request\tstatus\tCache-Status\ttime\tdatabase queries\t")
	fmt.Fprintln(w, "-------\t------\t------------\t----\t----------------\t")
	for _, s := range t.steps {
		status := "-" // no request
		if s.status != 0 {
			status = strconv.Itoa(s.status)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", s.what, status, cmp.Or(s.cacheStatus, "-"), short(s.took), s.queries, s.remark)
	}
	w.Flush()
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(out, strings.TrimRight(line, " \n"))
	}
}

func (v visitor) get(ctx context.Context, path string, header http.Header) (reply, error) {
	return v.do(ctx, http.MethodGet, path, header, http.NoBody)
}

// put gives a product a new price.
func (v visitor) put(ctx context.Context, path string, cents int64) (reply, error) {
	body := fmt.Sprintf(`{"price_cents":%d}`, cents)
	return v.do(ctx, http.MethodPut, path, http.Header{"Content-Type": {"application/json"}}, strings.NewReader(body))
}

func (v visitor) do(ctx context.Context, method, path string, header http.Header, body io.Reader) (reply, error) {
	req, err := request(ctx, method, v.base+path, body)
	if err != nil {
		return reply{}, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	start := time.Now()
	resp, err := v.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	return read(resp, start)
}

func request(ctx context.Context, method, url string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	req.Host = host
	return req, nil
}

func read(resp *http.Response, start time.Time) (reply, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, fmt.Errorf("read response: %w", err)
	}
	return reply{resp.StatusCode, resp.Header, body, time.Since(start)}, nil
}

// atOnce sends n requests, each on a connection of its own, to each server its
// share. All connections are there before the first request is sent. took is the
// time until all have been answered.
func atOnce(ctx context.Context, n int, path string, bases ...string) (replies []reply, took time.Duration, err error) {
	requests := make([]*http.Request, len(bases))
	for i, base := range bases {
		if requests[i], err = request(ctx, http.MethodGet, base+path, http.NoBody); err != nil {
			return nil, 0, err
		}
	}
	var dialer net.Dialer
	connections := make([]net.Conn, n)
	defer func() {
		for _, c := range connections {
			if c != nil {
				_ = c.Close() // its response has been read, or there was none
			}
		}
	}()
	for i := range connections {
		if connections[i], err = dialer.DialContext(ctx, "tcp", requests[i%len(bases)].URL.Host); err != nil {
			return nil, 0, fmt.Errorf("connection %d of %d (each takes two open files): %w", i+1, n, err)
		}
		if err := connections[i].SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return nil, 0, err
		}
	}

	replies = make([]reply, n)
	failures := make([]error, n)
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i, c := range connections {
		all.Go(func() {
			<-begin
			replies[i], failures[i] = ask(c, requests[i%len(bases)])
		})
	}
	start := time.Now()
	close(begin)
	all.Wait()
	return replies, time.Since(start), errors.Join(failures...)
}

// ask is one request over a connection, without the machinery of http.Client: a
// thousand of them would measure the client.
func ask(c net.Conn, req *http.Request) (reply, error) {
	start := time.Now()
	if err := req.Write(c); err != nil {
		return reply{}, fmt.Errorf("write request: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		return reply{}, fmt.Errorf("read response: %w", err)
	}
	return read(resp, start)
}

func money(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

// short writes a duration in milliseconds with three significant digits or so.
func short(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 1:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}
