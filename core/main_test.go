package core_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	minute = time.Minute
	hour   = time.Hour
)

var errDown = errors.New("the database is down")

// open makes a cache that the test's end closes.
func open(t testing.TB, o core.Options) *core.Cache {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	c, err := core.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

type item struct {
	Name string
	Tags []string
}

// items is a map and the database behind it, in a bubble of its own time.
type items struct {
	*core.Map[int, item]
	cache *core.Cache

	cleanup func(func()) // of the test

	loads atomic.Int64 // how often load was called
	now   atomic.Int64 // how many loads run
	most  atomic.Int64 // the most that ran at a time
	name  atomic.Value // what the database answers
	err   atomic.Pointer[error]
	gate  atomic.Pointer[chan struct{}] // if set, loads wait for it, whatever their context says
}

// bubble runs a test of a map of the class in a bubble.
func bubble(t *testing.T, class core.Class, test func(t *testing.T, m *items)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, openItems(t, class)) })
}

// option changes the options of a test's map.
type option[V any] = func(*core.MapOptions[int, V])

func with[V any](o core.MapOptions[int, V], opts ...option[V]) core.MapOptions[int, V] {
	for _, change := range opts {
		change(&o)
	}
	return o
}

func cloned[V any](clone func(V) V) option[V] {
	return func(o *core.MapOptions[int, V]) { o.Clone = clone }
}

func versioned[V any](version func(V) int64) option[V] {
	return func(o *core.MapOptions[int, V]) { o.Version = version }
}

func encoded[V any](codec core.Codec) option[V] {
	return func(o *core.MapOptions[int, V]) { o.Codec = codec }
}

func openItems(t *testing.T, class core.Class, opts ...option[item]) *items {
	t.Helper()
	return itemsOf(t, open(t, core.Options{Classes: core.Classes{"item": class}}), opts...)
}

func itemsOf(t *testing.T, c *core.Cache, opts ...option[item]) *items {
	t.Helper()
	m, err := core.NewMap(c, with(core.MapOptions[int, item]{Class: "item", Prefix: "item"}, opts...))
	require.NoError(t, err)
	db := &items{Map: m, cache: c, cleanup: t.Cleanup}
	db.name.Store("one")
	return db
}

func (m *items) load(context.Context, int) (item, error) {
	m.loads.Add(1)
	if now := m.now.Add(1); now > m.most.Load() {
		m.most.Store(now)
	}
	defer m.now.Add(-1)
	name := m.name.Load().(string)
	if gate := m.gate.Load(); gate != nil {
		<-*gate
	}
	if err := m.err.Load(); err != nil {
		return item{}, *err
	}
	return item{Name: name}, nil
}

// hold makes loads wait until the returned function is called, or the test ends.
func (m *items) hold() (release func()) {
	gate := make(chan struct{})
	m.gate.Store(&gate)
	release = sync.OnceFunc(func() {
		m.gate.Store(nil)
		close(gate)
	})
	m.cleanup(release)
	return release
}

func (m *items) fail(err error) {
	if err == nil {
		m.err.Store(nil)
	} else {
		m.err.Store(&err)
	}
}

// get gets item 1 and demands that it is there.
func (m *items) get(t testing.TB) string {
	t.Helper()
	v, err := m.Get(t.Context(), 1, m.load)
	require.NoError(t, err)
	return v.Name
}

// mustLoad demands that so many loads have run since the last time.
func (m *items) mustLoad(t testing.TB, want int, why string) {
	t.Helper()
	require.EqualValues(t, want, m.loads.Swap(0), why)
}

// pending is a Get in a goroutine of its own.
type pending struct{ result atomic.Pointer[result] }

type result struct {
	v   item
	err error
}

func (m *items) async(ctx context.Context, load core.Loader[int, item]) *pending {
	p := new(pending)
	go func() {
		v, err := m.Get(ctx, 1, load)
		p.result.Store(&result{v, err})
	}()
	return p
}

func (p *pending) done() bool { return p.result.Load() != nil }

func (p *pending) name(t testing.TB) string {
	t.Helper()
	require.True(t, p.done(), "it still waits")
	require.NoError(t, p.result.Load().err)
	return p.result.Load().v.Name
}

func (p *pending) err(t testing.TB) error {
	t.Helper()
	require.True(t, p.done(), "it still waits")
	return p.result.Load().err
}
