package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/redisstore"
)

// TestPatterns is the table of what Larder does for data: each pattern as an app uses it,
// in two instances a and b that share nothing but Redis and the database, on one Redis
// and on a cluster of three masters with a replica each.
//
//	go test -v -run TestPatterns ./core/redisstore
//	go test -v -run 'TestPatterns/write-behind' ./core/redisstore
//
// The rows are in patterns_read_test.go, patterns_write_test.go and patterns_queue_test.go.
func TestPatterns(t *testing.T) {
	t.Parallel()
	redises := []*sharedRedis{oneRedis(t)}
	if !testing.Short() { // the same once more
		redises = append(redises, threeMasters(t))
	}
	rows := []struct {
		pattern string
		show    func(p *pair)
	}{
		{"cache-aside", showCacheAside},
		{"negative caching", showNegativeCaching},
		{"validation", showValidation},
		{"stale while revalidate", showStaleWhileRevalidate},
		{"stale on error", showStaleOnError},
		{"stampede lock", showStampedeLock},
		{"TTL classes", showClasses},
		{"TTL classes reloaded", showSetClasses},

		{"GetMany", showGetMany},
		{"PutMany and InvalidateMany", showPutMany},

		{"invalidation by key", showInvalidation(byKey)},
		{"invalidation by tag", showInvalidation(byTag)},
		{"invalidation by pattern", showInvalidation(byPattern)},
		{"invalidation by prefix", showInvalidation(byPrefix)},
		{"invalidation of all", showInvalidation(ofAll)},
		{"invalidation by Sweep", showInvalidation(bySweep)},
		{"invalidation everywhere", showEverywhere},
		{"invalidation by pub-sub", showMessages},
		{"invalidation by other programs", showForeignMessages},

		{"warming", showWarm},
		{"warming never overwrites", showWarmBesideWrites},
		{"warming of URLs", showWarmURLs},
		{"warming of what is hot", showKeepWarm},

		{"write-through", showWriteThrough},
		{"write-through beside a load", showWriteBesideLoad},
		{"write-through by two", showTwoWriters},
		{"write-through with versions", showVersions},

		{"write-behind", showWriteBehind},
		{"write-behind in order", showOrder},
		{"write-behind coalesces", showCoalescing},
		{"write-behind merges", showMerge},
		{"write-behind takes over", showTakeover},
		{"write-behind dead letters", showDeadLetters},
		{"write-behind closed", showClose},
		{"write-behind back-pressure", showBackPressure},
		{"write-behind refused", showEvictionRefused},
	}
	guide, err := os.ReadFile("../PATTERNS.md")
	require.NoError(t, err)
	var named []string
	for _, m := range regexp.MustCompile("(?m)`([^`]+)` \\|$").FindAllSubmatch(guide, -1) {
		named = append(named, string(m[1]))
	}
	for i, row := range rows {
		require.Equal(t, named[i], strings.ReplaceAll(row.pattern, " ", "_"), "PATTERNS.md")
	}
	require.Len(t, named, len(rows), "PATTERNS.md")
	for _, row := range rows {
		t.Run(row.pattern, func(t *testing.T) {
			for _, r := range redises {
				t.Run(r.name, func(t *testing.T) {
					t.Parallel() // on another Redis: rows of one Redis come one by one, since some change its settings
					row.show(&pair{T: t, redis: r})
				})
			}
		})
	}
}

// sharedRedis is what all rows run on.
type sharedRedis struct {
	name    string
	addrs   []string
	cluster bool
	masters []*redisserver.Server
}

func oneRedis(t *testing.T) *sharedRedis {
	t.Helper()
	server := redisserver.Single(t)
	return &sharedRedis{"one Redis", []string{server.Addr()}, false, []*redisserver.Server{server}}
}

func threeMasters(t *testing.T) *sharedRedis {
	t.Helper()
	cluster := redisserver.ThreeByThree(t)
	return &sharedRedis{"cluster", cluster.Addrs(), true, cluster.Nodes()[:3]}
}

// client makes one of the kind that an app has.
func (r *sharedRedis) client(dial func(ctx context.Context, network, addr string) (net.Conn, error)) redis.UniversalClient {
	// After as many failures as its size a pool of go-redis dials in the background, and
	// notices up to a second late that it has been closed.
	const size = 10_000
	if r.cluster {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: r.addrs, Dialer: dial, PoolSize: size})
	}
	return redis.NewClient(&redis.Options{Addr: r.addrs[0], Dialer: dial, PoolSize: size})
}

type product struct {
	Name    string
	Stock   int
	Version int64
}

// pair is two instances of an app, and their database.
type pair struct {
	*testing.T
	redis *sharedRedis
	space string // the namespace
	a, b  *app
	db    *shopDB
}

// app is one instance: in an app of yours, a process.
type app struct {
	*core.Map[int, product] // products by id, with the prefix "product"
	cache                   *core.Cache
	wire                    *wire
}

// open starts both instances. Their products are of the class.
func (p *pair) open(class core.Class, opts ...func(*core.MapOptions[int, product])) {
	p.Helper()
	p.openWith(func(o *core.Options) { o.Classes["product"] = class }, opts...)
}

func (p *pair) openWith(change func(*core.Options), opts ...func(*core.MapOptions[int, product])) {
	p.Helper()
	p.space = strings.NewReplacer("/", ".", "{", "", "}", "").Replace(p.Name())
	p.db = &shopDB{rows: make(map[int]product), at: make(map[int]bool)}
	p.a, p.b = p.start(change, opts...), p.start(change, opts...)
	p.ready()
}

// probed is how many ids lie in about all partitions.
const probed = 40

// ready waits until a stores the values that it loads, and b has them. Values that are loaded
// in the first moments of a namespace may be answered without being stored.
func (p *pair) ready() {
	p.Helper()
	var probes []*core.Map[int, int]
	for _, in := range []*app{p.a, p.b} {
		m, err := core.NewMap(in.cache, core.MapOptions[int, int]{Class: "product", Prefix: "probe"})
		require.NoError(p, err)
		probes = append(probes, m)
	}
	load := func(_ context.Context, id int) (int, error) { return id, nil }
	for id := range probed {
		p.until("values that are shared", func() bool {
			_, err := probes[0].Get(p.Context(), id, load)
			require.NoError(p, err)
			r, err := probes[1].Lookup(p.Context(), id, load)
			require.NoError(p, err)
			return r.Source != core.FromLoader
		})
	}
}

// start starts an instance, which the test's end closes.
func (p *pair) start(change func(*core.Options), opts ...func(*core.MapOptions[int, product])) *app {
	p.Helper()
	w := newWire()
	client := p.redis.client(w.dial)
	o := core.Options{
		Remote: redisstore.New(client), Namespace: p.space,
		RequireRemote: true,
		RemoteBudget:  5 * time.Second,  // the machine that tests run on may be busy,
		MaxStaleness:  10 * time.Second, // and rounds of the watchdog are not missed
		Classes:       core.Classes{},
		Logger:        slog.New(slog.DiscardHandler),
	}
	change(&o)
	cache, err := core.New(o)
	require.NoError(p, err)
	p.Cleanup(func() {
		if err := cache.Close(); !w.isCut() {
			require.NoError(p, err)
		}
		require.NoError(p, client.Close())
	})
	mo := core.MapOptions[int, product]{Class: "product", Prefix: "product"}
	for _, change := range opts {
		change(&mo)
	}
	products, err := core.NewMap(cache, mo)
	require.NoError(p, err)
	return &app{products, cache, w}
}

// lookup asks an instance as the app does, by the loader that reads the database.
func (p *pair) lookup(in *app, id int) core.Result[product] {
	p.Helper()
	r, err := in.Lookup(p.Context(), id, p.db.load)
	require.NoError(p, err)
	return r
}

// has demands what an instance answers.
func (p *pair) has(in *app, id int, name string) {
	p.Helper()
	require.Equal(p, name, p.lookup(in, id).Value.Name)
}

// comesToHave waits until an instance has heard of a change that the other one has made.
func (p *pair) comesToHave(in *app, id int, name string) {
	p.Helper()
	p.until(name, func() bool { return p.lookup(in, id).Value.Name == name })
}

// comesToHit is comesToHave of an instance that has it without a load.
func (p *pair) comesToHit(in *app, id int, name string) {
	p.Helper()
	p.until(name, func() bool {
		v, err := in.Get(p.Context(), id, func(context.Context, int) (product, error) {
			return product{}, errors.New("it is not cached yet")
		})
		return err == nil && v.Name == name
	})
}

// loaded demands which ids have been loaded since the last time, each as often as it is
// named.
func (p *pair) loaded(ids ...int) {
	p.Helper()
	got := p.db.takeLoads()
	slices.Sort(got)
	require.Equal(p, ids, got, "loads")
}

// loadedAgain is loaded where id may have been loaded once more than it is named.
func (p *pair) loadedAgain(id int, ids ...int) {
	p.Helper()
	got := p.db.takeLoads()
	slices.Sort(got)
	if len(got) > len(ids) {
		ids = slices.Sorted(slices.Values(append(ids, id)))
	}
	require.Equal(p, ids, got, "loads")
}

// loadedAnew is loaded after an invalidation. An instance that is asked while the message
// arrives may repeat the other one's load.
func (p *pair) loadedAnew(ids ...int) {
	p.Helper()
	got := p.db.takeLoads()
	slices.Sort(got)
	require.Equal(p, ids, slices.Compact(got), "loads")
}

// until waits for a condition of the real world.
func (p *pair) until(what string, ok func() bool) {
	p.Helper()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-limit:
			p.Fatal("it does not come: ", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// receive is <-ch, and does not wait for ever.
func receive[T any](p *pair, ch <-chan T) T {
	p.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(30 * time.Second):
		p.Fatal("it does not come")
		panic("unreachable")
	}
}

var errDatabaseDown = errors.New("the database is down")

// shopDB is where products really live.
type shopDB struct {
	mu    sync.Mutex
	rows  map[int]product
	loads []int // ids
	err   error // of every load and apply
	bad   int   // an id that apply does not take; 0: none

	applied []core.Change[int, product]
	at      map[int]bool // ids that an apply is writing
	twice   int          // ids that two applies wrote concurrently
	during  func()       // in the middle of a load or apply, after a load has read
}

func (d *shopDB) set(id int, v product) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[id] = v
}

// row returns the database's value.
func (d *shopDB) row(id int) product {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows[id]
}

func (d *shopDB) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *shopDB) refuse(id int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bad = id
}

// hold keeps loads and applies in their middle until release. began gets something when
// one is there.
func (d *shopDB) hold() (began <-chan struct{}, release func()) {
	arrived, gate := make(chan struct{}, 1), make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.during = func() {
		select {
		case arrived <- struct{}{}:
		default:
		}
		<-gate
	}
	return arrived, sync.OnceFunc(func() {
		d.mu.Lock()
		d.during = nil
		d.mu.Unlock()
		close(gate)
	})
}

// load is the app's loader.
func (d *shopDB) load(ctx context.Context, id int) (product, error) {
	rows, err := d.loadMany(ctx, []int{id})
	if err != nil {
		return product{}, err
	}
	if v, ok := rows[id]; ok {
		return v, nil
	}
	return product{}, core.ErrNotFound
}

// loadShort is a loader whose value is stale at once.
func (d *shopDB) loadShort(ctx context.Context, id int) (product, error) {
	if err := core.SetTTL(ctx, time.Millisecond); err != nil {
		return product{}, err
	}
	return d.load(ctx, id)
}

func (d *shopDB) loadMany(_ context.Context, ids []int) (map[int]product, error) {
	d.mu.Lock()
	d.loads = append(d.loads, ids...)
	rows := make(map[int]product)
	for _, id := range ids {
		if v, ok := d.rows[id]; ok {
			rows[id] = v
		}
	}
	err, during := d.err, d.during
	d.mu.Unlock()
	if during != nil {
		during()
	}
	return rows, err
}

func (d *shopDB) takeLoads() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	loads := d.loads
	d.loads = nil
	return loads
}

// save is what Map.Write calls.
func (d *shopDB) save(_ context.Context, id int, v product) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	d.rows[id] = v
	return nil
}

// apply is called by the write-behind queue.
func (d *shopDB) apply(_ context.Context, changes []core.Change[int, product]) error {
	d.mu.Lock()
	during := d.during
	for _, c := range changes {
		if d.at[c.ID] {
			d.twice++
		}
		d.at[c.ID] = true
	}
	d.mu.Unlock()
	if during != nil {
		during()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range changes {
		delete(d.at, c.ID)
	}
	if d.err != nil {
		return d.err
	}
	failed := make(core.BatchError[int])
	for _, c := range changes {
		if c.ID == d.bad && d.bad != 0 {
			failed[c.ID] = errors.New("out of range")
			continue
		}
		d.applied = append(d.applied, c)
		if c.Deleted {
			delete(d.rows, c.ID)
		} else {
			d.rows[c.ID] = c.Value
		}
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

// appliedTo returns the stock of an id from one apply to the next.
func (d *shopDB) appliedTo(id int) (stock []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.applied {
		if c.ID == id {
			stock = append(stock, c.Value.Stock)
		}
	}
	return stock
}

// overlaps returns how often an apply came to an id that another one was at.
func (d *shopDB) overlaps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.twice
}

// wire is an instance's network.
type wire struct {
	mu    sync.Mutex
	conns map[*wireConn]struct{}
	cut   bool
	deaf  atomic.Bool // messages are lost on their way
}

func newWire() *wire { return &wire{conns: make(map[*wireConn]struct{})} }

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if w.isCut() {
		return nil, net.ErrClosed
	}
	raw, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = raw.Close()
		return nil, net.ErrClosed
	}
	conn := &wireConn{Conn: raw, of: w}
	w.conns[conn] = struct{}{}
	return conn, nil
}

// die makes of the instance what Redis sees of a process that was killed.
func (w *wire) die() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for conn := range w.conns {
		_ = conn.Conn.Close()
	}
}

func (w *wire) isCut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut
}

// wireConn is one connection.
type wireConn struct {
	net.Conn
	of         *wire
	subscribes atomic.Bool
}

func (c *wireConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("subscribe")) {
		c.subscribes.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *wireConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.subscribes.Load() || !c.of.deaf.Load() {
			return n, err
		}
	}
}

func (c *wireConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
