package core_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// buffer is memory that a framework reuses: what it lends is a view.
type buffer []byte

func (b *buffer) lend(s string) string {
	*b = []byte(s)
	return unsafe.String(unsafe.SliceData(*b), len(s))
}

// reuse overwrites what was lent.
func (b *buffer) reuse() {
	for i := range *b {
		(*b)[i] = 'x'
	}
}

// ids that hold text in other ways than as a string.
type (
	named  string
	strukt struct {
		Shop string
		name string
	}
	array  [2]string
	face   interface{ MarshalText() ([]byte, error) }
	points struct{ Name string }
)

func (s strukt) MarshalText() ([]byte, error)  { return []byte(s.Shop + "/" + s.name), nil }
func (a array) MarshalText() ([]byte, error)   { return []byte(a[0] + "/" + a[1]), nil }
func (p *points) MarshalText() ([]byte, error) { return []byte(p.Name), nil }

// rows is a map of rows that say what they were loaded for.
type rows[K comparable] struct {
	*core.Map[K, string]
	cache *core.Cache
	text  func(K) string

	mu   sync.Mutex
	seen []string
	gate chan struct{}
}

func rowsOf[K comparable](t *testing.T, text func(K) string, o core.Options) *rows[K] {
	t.Helper()
	o.Classes = core.Classes{"c": {TTL: minute, StaleWhileRevalidate: hour}}
	c := open(t, o)
	m, err := core.NewMap(c, core.MapOptions[K, string]{Class: "c", Prefix: "row"})
	require.NoError(t, err)
	return &rows[K]{Map: m, cache: c, text: text, gate: make(chan struct{}, 100)}
}

// load reads the id when the query is over, as a loader may.
func (r *rows[K]) load(_ context.Context, id K) (string, error) {
	<-r.gate
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, r.text(id))
	return "row of " + r.text(id), nil
}

func (r *rows[K]) loadMany(ctx context.Context, ids []K) (map[K]string, error) {
	values := make(map[K]string)
	for _, id := range ids {
		v, err := r.load(ctx, id)
		if err != nil {
			return nil, err
		}
		values[id] = v
	}
	return values, nil
}

func (r *rows[K]) run() { r.gate <- struct{}{} }

// idKinds runs a test with each kind of id: lend makes one that is a view of a buffer,
// and reuse overwrites it.
func idKinds(t *testing.T, test func(t *testing.T, kind idKind)) {
	t.Helper()
	for _, kind := range []idKind{
		kindOf("string", func(b *buffer) (string, func()) { return b.lend("ann"), b.reuse }, func(id string) string { return id }),
		kindOf("named string", func(b *buffer) (named, func()) { return named(b.lend("ann")), b.reuse }, func(id named) string { return string(id) }),
		kindOf("struct", func(b *buffer) (strukt, func()) {
			return strukt{b.lend("ann"), b.lendMore("bob")}, b.reuse
		}, func(id strukt) string { return id.Shop + "/" + id.name }),
		kindOf("array", func(b *buffer) (array, func()) {
			return array{b.lend("ann"), b.lendMore("bob")}, b.reuse
		}, func(id array) string { return id[0] + "/" + id[1] }),
		kindOf("interface", func(b *buffer) (face, func()) {
			return strukt{b.lend("ann"), b.lendMore("bob")}, b.reuse
		}, func(id face) string { text, _ := id.MarshalText(); return string(text) }),
		kindOf("pointer", func(b *buffer) (*points, func()) {
			p := &points{b.lend("ann")}
			return p, b.reuse
		}, func(id *points) string { return id.Name }),
		kindOf("pointer whose value changes", func(*buffer) (*big.Int, func()) {
			p := big.NewInt(42)
			return p, func() { p.SetInt64(43) }
		}, (*big.Int).String),
	} {
		t.Run(kind.name, func(t *testing.T) { test(t, kind) })
	}
}

// lendMore lends a second view of the same buffer.
func (b *buffer) lendMore(s string) string {
	*b = (*b)[:len(s):len(s)] // what was lent first is of the same length
	return unsafe.String(unsafe.SliceData(*b), len(s))
}

// idKind runs with ids of one type.
type idKind struct {
	name string
	get  func(t *testing.T)
	many func(t *testing.T)
	stay func(t *testing.T)
	warm func(t *testing.T)
	hot  func(t *testing.T)
}

func kindOf[K comparable](name string, lend func(*buffer) (K, func()), text func(K) string) idKind {
	want := func() string {
		id, _ := lend(new(buffer))
		return strings.Clone(text(id))
	}
	fresh := func() K { id, _ := lend(new(buffer)); return id }
	return idKind{
		name: name,
		// The caller goes while his load runs.
		get: func(t *testing.T) {
			r := rowsOf(t, text, core.Options{})
			id, reuse := lend(new(buffer))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { _, err := r.Get(ctx, id, r.load); done <- err }()
			synctest.Wait()
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
			reuse()
			r.run()
			synctest.Wait()
			require.Equal(t, []string{want()}, r.seen)
			v, err := r.Get(t.Context(), fresh(), unwanted[K])
			require.NoError(t, err)
			require.Equal(t, "row of "+want(), v)
		},
		many: func(t *testing.T) {
			r := rowsOf(t, text, core.Options{})
			id, reuse := lend(new(buffer))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { _, err := r.GetMany(ctx, []K{id}, r.loadMany); done <- err }()
			synctest.Wait()
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
			reuse()
			r.run()
			synctest.Wait()
			require.Equal(t, []string{want()}, r.seen)
			id = fresh()
			values, err := r.GetMany(t.Context(), []K{id}, r.loadMany)
			require.NoError(t, err)
			require.Equal(t, map[K]string{id: "row of " + want()}, values, "the caller finds it by his own id")
			other, err := rowsOf(t, text, core.Options{}).GetMany(t.Context(), []K{id}, func(_ context.Context, ids []K) (map[K]string, error) {
				return map[K]string{ids[0]: "loaded"}, nil
			})
			require.NoError(t, err)
			require.Equal(t, map[K]string{id: "loaded"}, other, "also what was loaded")
		},
		// A stale value is refreshed behind its caller.
		stay: func(t *testing.T) {
			for _, get := range []func(r *rows[K], id K) error{
				func(r *rows[K], id K) error { _, err := r.Get(t.Context(), id, r.load); return err },
				func(r *rows[K], id K) error { _, err := r.Lookup(t.Context(), id, r.load); return err },
				func(r *rows[K], id K) error { _, err := r.GetMany(t.Context(), []K{id}, r.loadMany); return err },
			} {
				r := rowsOf(t, text, core.Options{})
				r.run()
				require.NoError(t, get(r, fresh()))
				time.Sleep(minute)
				id, reuse := lend(new(buffer))
				require.NoError(t, get(r, id))
				reuse()
				r.run()
				synctest.Wait()
				require.Equal(t, []string{want(), want()}, r.seen)
			}
		},
		warm: func(t *testing.T) {
			r := rowsOf(t, text, core.Options{})
			r.run()
			ids := func(yield func(K) bool) {
				id, reuse := lend(new(buffer))
				if yield(id) {
					reuse()
				}
			}
			_, err := r.Warm(t.Context(), iter.Seq[K](ids), r.loadMany, core.WarmOptions{Batch: 10})
			require.NoError(t, err)
			require.Equal(t, []string{want()}, r.seen)
		},
		hot: func(t *testing.T) {
			r := rowsOf(t, text, core.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			defer synctest.Wait()
			defer cancel()
			go func() { _ = r.KeepWarm(ctx, r.loadMany, core.KeepWarmOptions{Every: 10 * time.Second}) }()
			synctest.Wait()
			for range 3 {
				r.run()
				id, reuse := lend(new(buffer))
				_, err := r.Get(t.Context(), id, r.load)
				require.NoError(t, err)
				reuse()
			}
			time.Sleep(minute)
			r.mu.Lock()
			defer r.mu.Unlock()
			require.GreaterOrEqual(t, len(r.seen), 2)
			require.Equal(t, []string{want(), want()}, r.seen[:2])
		},
	}
}

func unwanted[K comparable](context.Context, K) (string, error) {
	return "", errors.New("it was not stored under its key")
}

func TestIdsThatAreViewsAreCopiedForBackgroundLoads(t *testing.T) {
	idKinds(t, func(t *testing.T, kind idKind) {
		for name, test := range map[string]func(*testing.T){
			"a load whose caller goes": kind.get, "a batch whose caller goes": kind.many,
			"a refresh": kind.stay, "warming": kind.warm, "what is kept warm": kind.hot,
		} {
			t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
		}
	})
}

func TestTargetsThatAreViewsAreCopied(t *testing.T) {
	targets := map[string]func(b *buffer) core.Target{
		"key":     func(b *buffer) core.Target { return core.Key(b.lend("row:ann")) },
		"tag":     func(b *buffer) core.Target { return core.Tag(b.lend("people")) },
		"pattern": func(b *buffer) core.Target { return core.Pattern(b.lend("row:a*")) },
		"prefix":  func(b *buffer) core.Target { return core.Prefix(b.lend("row:an")) },
		"path":    func(b *buffer) core.Target { return core.Path(b.lend("/people")) },
		"group":   func(b *buffer) core.Target { return core.Group(b.lend("https://shop.example"), "people") },
	}
	for name, target := range targets {
		for how, invalidate := range map[string]func(t *testing.T, c *core.Cache, target core.Target, reuse func()){
			"before": func(t *testing.T, c *core.Cache, target core.Target, reuse func()) {
				reuse()
				require.NoError(t, c.Invalidate(t.Context(), target))
			},
			"after": func(t *testing.T, c *core.Cache, target core.Target, reuse func()) {
				require.NoError(t, c.Invalidate(t.Context(), target))
				reuse()
			},
			"sweep": func(t *testing.T, c *core.Cache, target core.Target, reuse func()) {
				_, err := c.Sweep(t.Context(), target)
				require.NoError(t, err)
				reuse()
			},
			"intent": func(t *testing.T, c *core.Cache, target core.Target, reuse func()) {
				in, err := c.Begin(t.Context(), target)
				reuse()
				var bad *core.ConfigError
				if errors.As(err, &bad) { // patterns have none
					require.NoError(t, c.Invalidate(t.Context(), target))
					return
				}
				require.NoError(t, err)
				require.NoError(t, in.End(t.Context()))
			},
		} {
			t.Run(name+", reused "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
					m, err := core.NewMap(c, core.MapOptions[string, int]{Class: "c", Prefix: "row"})
					require.NoError(t, err)
					loads := 0
					load := func(ctx context.Context, _ string) (int, error) {
						loads++
						return loads, core.AddTags(ctx, "people")
					}
					_, err = m.Get(t.Context(), "ann", load)
					require.NoError(t, err)
					b := new(buffer)
					aimed := target(b)
					invalidate(t, c, aimed, b.reuse)
					if name == "path" || name == "group" { // what carries them is no value of a map
						require.Equal(t, target(new(buffer)), aimed)
						return
					}
					v, err := m.Get(t.Context(), "ann", load)
					require.NoError(t, err)
					require.Equal(t, 2, v)
				})
			})
		}
	}
}

func TestTagsOfALoaderAreCopied(t *testing.T) {
	type m = *core.Map[string, string]
	plain := func(context.Context, string) (string, error) { return "v", nil }
	for name, say := range map[string]func(t *testing.T, m m, b *buffer){
		"AddTags": func(t *testing.T, m m, b *buffer) {
			_, err := m.Get(t.Context(), "ann", func(ctx context.Context, _ string) (string, error) {
				return "v", core.AddTags(ctx, b.lend("people"))
			})
			require.NoError(t, err)
		},
		"Put": func(t *testing.T, m m, b *buffer) {
			require.NoError(t, m.Put(t.Context(), "ann", "v", b.lend("people")))
		},
		"PutMany": func(t *testing.T, m m, b *buffer) {
			require.NoError(t, m.PutMany(t.Context(), map[string]string{"ann": "v"}, b.lend("people")))
		},
		"Write": func(t *testing.T, m m, b *buffer) {
			save := func(context.Context, string, string) error { return nil }
			require.NoError(t, m.Write(t.Context(), "ann", "v", save, b.lend("people")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
			m, err := core.NewMap(c, core.MapOptions[string, string]{Class: "c", Prefix: "row"})
			require.NoError(t, err)
			b := new(buffer)
			say(t, m, b)
			b.reuse()
			r, err := m.Lookup(t.Context(), "ann", plain)
			require.NoError(t, err)
			require.Equal(t, core.FromProcess, r.Source)
			require.NoError(t, c.Invalidate(t.Context(), core.Tag("people")))
			r, err = m.Lookup(t.Context(), "ann", plain)
			require.NoError(t, err)
			require.Equal(t, core.FromLoader, r.Source)
		})
	}
}

func TestAValidatorThatIsAViewIsCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, core.Options{Classes: core.Classes{"c": {TTL: minute}}})
		m, err := core.NewMap(c, core.MapOptions[string, string]{Class: "c", Prefix: "row"})
		require.NoError(t, err)
		var b buffer
		offered := ""
		load := func(ctx context.Context, _ string) (string, error) {
			_, offered, _ = core.StaleValue[string](ctx)
			return "v", core.SetValidator(ctx, b.lend("v1"))
		}
		_, err = m.Get(t.Context(), "ann", load)
		require.NoError(t, err)
		b.reuse()
		time.Sleep(2 * minute)
		_, err = m.Get(t.Context(), "ann", load)
		require.NoError(t, err)
		require.Equal(t, "v1", offered)
	})
}

func TestNamesThatAreViewsAreCopied(t *testing.T) {
	var name, prefix, space, version, field, added buffer
	server := memtier.New(memtier.Config{})
	defer server.Close()
	c := open(t, core.Options{
		Remote: server.Tier("a"), Namespace: space.lend("space"), Version: version.lend("v1"),
		Classes: core.Classes{name.lend("c"): {TTL: hour, HTTP: core.HTTPPolicy{
			IgnoreQuery: []string{field.lend("page")}, Cookies: []string{field.lend("page")}, Headers: []string{field.lend("X-Page")},
		}}},
	})
	for _, b := range []buffer{name, space, version, field} {
		b.reuse()
	}
	class, err := c.Class("c")
	require.NoError(t, err)
	require.Equal(t, []string{"page"}, class.HTTP.IgnoreQuery)
	require.Equal(t, []string{"page"}, class.HTTP.Cookies)
	require.Equal(t, []string{"X-Page"}, class.HTTP.Headers)
	require.Equal(t, "space", c.Options().Namespace)
	require.Equal(t, "v1", c.Options().Version)

	require.NoError(t, c.SetClasses(core.Classes{"c": class, added.lend("d"): {TTL: hour}}))
	added.reuse()
	m, err := core.NewMap(c, core.MapOptions[string, string]{Class: added.lend("d"), Prefix: prefix.lend("row")})
	require.NoError(t, err)
	added.reuse()
	prefix.reuse()
	key, err := m.Key("ann")
	require.NoError(t, err)
	require.Equal(t, "row:ann", key)
	require.NoError(t, c.SetClasses(core.Classes{"c": class, "d": {TTL: hour}}))
	_, err = m.Get(t.Context(), "ann", func(context.Context, string) (string, error) { return "v", nil })
	require.NoError(t, err)
}

func TestNamesInErrorsAreCopied(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
	m, err := core.NewMap(c, core.MapOptions[string, string]{Class: "c", Prefix: "row"})
	require.NoError(t, err)
	boom := errors.New("boom")
	fails := func(context.Context, string) (string, error) { return "", boom }
	for name, call := range map[string]func(b *buffer) error{
		"id":      func(b *buffer) error { _, err := m.Get(t.Context(), b.lend("a\x01b"), fails); return err },
		"key":     func(b *buffer) error { return c.Invalidate(t.Context(), core.Key(b.lend("a\x01b"))) },
		"tag":     func(b *buffer) error { return m.Put(t.Context(), "ann", "v", b.lend("a\x01b")) },
		"pattern": func(b *buffer) error { return c.Invalidate(t.Context(), core.Pattern(b.lend("a\x01b"))) },
		"path":    func(b *buffer) error { return c.Invalidate(t.Context(), core.Path(b.lend("ab"))) },
		"class":   func(b *buffer) error { _, err := c.Class(b.lend("other")); return err },
		"batch": func(b *buffer) error {
			_, err := m.GetMany(t.Context(), []string{b.lend("ann")}, func(context.Context, []string) (map[string]string, error) { return nil, boom })
			return err
		},
		"puts": func(b *buffer) error {
			closed := open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
			m, err := core.NewMap(closed, core.MapOptions[string, string]{Class: "c", Prefix: "row"})
			require.NoError(t, err)
			require.NoError(t, closed.Close())
			return m.PutMany(t.Context(), map[string]string{b.lend("ann"): "v"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := new(buffer)
			err := call(b)
			require.Error(t, err)
			said := fmt.Sprint(err, reflect.ValueOf(err))
			said = strings.Clone(said)
			b.reuse()
			require.Equal(t, said, fmt.Sprint(err, reflect.ValueOf(err)))
			var each core.BatchError[string]
			if errors.As(err, &each) {
				require.Contains(t, each, "ann")
			}
		})
	}
}

func TestWarmedIdsMayBeViewsOfOneBuffer(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	m, err := core.NewMap(c, core.MapOptions[string, string]{Class: "item", Prefix: "item"})
	require.NoError(t, err)
	var got []string
	_, err = m.Warm(t.Context(), func(yield func(string) bool) {
		var b buffer
		for _, s := range []string{"one", "two", "six"} {
			if !yield(b.lend(s)) {
				return
			}
			b.reuse()
		}
	}, func(_ context.Context, batch []string) (map[string]string, error) {
		got = append(got, batch...)
		return nil, nil
	}, core.WarmOptions{Batch: 2, Parallel: 1})
	require.NoError(t, err)
	slices.Sort(got)
	require.Equal(t, []string{"one", "six", "two"}, got)
}

func TestQueuedChangesAreNotViewsOfTheirCallersBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
		m, err := core.NewMap(c, core.MapOptions[string, string]{Class: "c", Prefix: "row"})
		require.NoError(t, err)
		var mu sync.Mutex
		applied, dead := map[string]string{}, []string(nil)
		w, err := core.NewWriteBehind(m, func(_ context.Context, changes []core.Change[string, string]) error {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range changes {
				applied[c.ID] = c.Value
				if c.ID == "bad" {
					return core.ErrPoison
				}
			}
			return nil
		}, core.WriteBehindOptions[string, string]{Batch: 1, OnDead: func(c core.Change[string, string], _ error) {
			mu.Lock()
			defer mu.Unlock()
			dead = append(dead, c.ID)
		}})
		require.NoError(t, err)
		for _, id := range []string{"ann", "bad"} {
			var b, value, tag buffer
			require.NoError(t, w.Put(t.Context(), b.lend(id), value.lend("v1"), tag.lend("people")))
			b.reuse()
			value.reuse()
			tag.reuse()
		}
		time.Sleep(minute)
		letters, err := w.DeadLetters(t.Context(), 10)
		require.NoError(t, err)
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, map[string]string{"ann": "v1", "bad": "v1"}, applied)
		require.Equal(t, []string{"bad"}, dead)
		require.Len(t, letters, 1)
		require.Equal(t, "bad", letters[0].ID)
	})
}
