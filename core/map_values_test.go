package core_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// No caller can change another caller's value: neither the loader, nor the caller of the
// load, nor a caller that waited or hit.
func TestCallersGetCopiesOfTheirOwn(t *testing.T) {
	clone := cloned(func(v item) item {
		v.Tags = slices.Clone(v.Tags)
		return v
	})
	for name, options := range map[string][]option[item]{
		"decoded": nil, "cloned": {clone}, "another codec": {encoded[item](gobCodec{})},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := openItems(t, core.Class{TTL: hour, StaleWhileRevalidate: hour}, options...)
				own := []string{"a", "b"} // the loader's
				load := func(ctx context.Context, id int) (item, error) {
					v, err := m.load(ctx, id)
					v.Tags = own
					return v, err
				}
				spoil := func(v item) {
					require.Equal(t, []string{"a", "b"}, v.Tags)
					v.Tags[0] = "spoiled"
				}
				release := m.hold()
				leader := m.async(t.Context(), load)
				synctest.Wait()
				waiters := []*pending{m.async(t.Context(), load), m.async(t.Context(), load)}
				synctest.Wait()
				release()
				synctest.Wait()
				spoil(leader.result.Load().v)
				for _, w := range waiters {
					spoil(w.result.Load().v)
				}
				for range 3 {
					v, err := m.Get(t.Context(), 1, load)
					require.NoError(t, err)
					spoil(v)
				}
				m.mustLoad(t, 1, "")

				put := item{Name: "put", Tags: []string{"a", "b"}}
				require.NoError(t, m.Put(t.Context(), 1, put))
				put.Tags[0] = "spoiled"
				for range 2 {
					v, err := m.Get(t.Context(), 1, load)
					require.NoError(t, err)
					spoil(v)
				}
				time.Sleep(hour) // stale
				v, err := m.Get(t.Context(), 1, load)
				require.NoError(t, err)
				spoil(v)
				synctest.Wait()
			})
		})
	}
}

type gobCodec struct{}

func (gobCodec) Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}
func (gobCodec) Unmarshal(d []byte, v any) error { return gob.NewDecoder(bytes.NewReader(d)).Decode(v) }

func TestValuesOfAnyShapeRoundTrip(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	same(t, c, "string", "")
	same(t, c, "bytes", []byte{0, 255})
	same(t, c, "nil", (*item)(nil))
	same(t, c, "pointer", &item{Name: "x", Tags: []string{}})
	same(t, c, "map", map[string]int{"a": 1})
	same(t, c, "number", int64(1)<<62+1)
	same(t, c, "slice", []item(nil))
}

func same[V any](t *testing.T, c *core.Cache, prefix string, v V) {
	t.Helper()
	m, err := core.NewMap(c, core.MapOptions[int, V]{Class: "item", Prefix: prefix})
	require.NoError(t, err)
	for range 2 {
		got, err := m.Get(t.Context(), 1, func(context.Context, int) (V, error) { return v, nil })
		require.NoError(t, err)
		require.Equal(t, v, got)
	}
	require.NoError(t, m.Put(t.Context(), 1, v))
	got, err := m.Get(t.Context(), 1, func(context.Context, int) (V, error) { panic("it is there") })
	require.NoError(t, err)
	require.Equal(t, v, got)
}

func TestTrailingBytesAfterAValueAreRefused(t *testing.T) {
	var v item
	require.NoError(t, core.JSON.Unmarshal([]byte(`{"Name":"x"} `+"\n"), &v))
	require.Error(t, core.JSON.Unmarshal([]byte(`{"Name":"x"}{}`), &v))
	require.Error(t, core.JSON.Unmarshal([]byte(`{"Name":"x"`), &v))
	require.Error(t, core.JSON.Unmarshal(nil, &v))
}

func TestAValueOverMaxEntryBytesIsSharedAndNotStored(t *testing.T) {
	bubble(t, core.Class{TTL: hour, MaxEntryBytes: 100}, func(t *testing.T, m *items) {
		m.name.Store(strings.Repeat("x", 100)) // and the rest of the JSON
		release := m.hold()
		one, two := m.async(t.Context(), m.load), m.async(t.Context(), m.load)
		synctest.Wait()
		release()
		synctest.Wait()
		require.Len(t, one.name(t), 100)
		require.Len(t, two.name(t), 100)
		m.mustLoad(t, 1, "who waits shares it")
		require.Len(t, m.get(t), 100)
		m.mustLoad(t, 1, "but it is not stored")
		require.Zero(t, m.cache.Stats().Entries)

		m.name.Store(strings.Repeat("x", 100-len(`{"Name":"","Tags":null}`)))
		m.get(t)
		m.get(t)
		m.mustLoad(t, 1, "what just fits is stored")
		var bad *core.ConfigError
		require.ErrorAs(t, m.Put(t.Context(), 1, item{Name: strings.Repeat("x", 100)}), &bad)
		m.get(t)
		m.mustLoad(t, 0, "a Put that is refused has done nothing")
	})
}

func TestAValueThatDoesNotDecodeIsAMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		codec := &failingCodec{Codec: core.JSON}
		m := openItems(t, core.Class{TTL: hour, StaleWhileRevalidate: hour, StaleIfError: hour}, encoded[item](codec))
		m.get(t)
		codec.fail(1)
		m.name.Store("two")
		require.Equal(t, "two", m.get(t))
		m.mustLoad(t, 2, "")
		require.EqualValues(t, 1, m.cache.Stats().Undecodable)
		require.Equal(t, "two", m.get(t))
		m.mustLoad(t, 0, "")

		codec.fail(2)
		m.fail(errDown)
		_, err := m.Get(t.Context(), 1, m.load)
		require.ErrorIs(t, err, errDown, "it cannot stand in for an error either")
	})
}

// "A value that does not decode is a miss, not an error", says doc.go.
func TestWaitersOfAValueThatDoesNotDecodeLoadForThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		codec := &failingCodec{Codec: core.JSON}
		m := openItems(t, core.Class{TTL: hour}, encoded[item](codec))
		release := m.hold()
		leader := m.async(t.Context(), m.load)
		synctest.Wait()
		waiter := m.async(t.Context(), m.load)
		synctest.Wait()
		codec.fail(1)
		release()
		synctest.Wait()
		require.Equal(t, "one", leader.name(t))
		require.Equal(t, "one", waiter.name(t))
	})
}

// failingCodec fails to decode so many times.
type failingCodec struct {
	core.Codec
	mu   sync.Mutex
	left int
}

func (c *failingCodec) fail(times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = times
}

func (c *failingCodec) Unmarshal(data []byte, v any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left > 0 {
		c.left--
		v.(*item).Name = "half"
		return errors.New("corrupt")
	}
	return c.Codec.Unmarshal(data, v)
}

// The context functions of a loader.

func TestATagOfALoaderInvalidatesItsValue(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		load := func(ctx context.Context, id int) (item, error) {
			require.NoError(t, core.AddTags(ctx, "a", "b"))
			require.NoError(t, core.AddTags(ctx, "b", "c"))
			return m.load(ctx, id)
		}
		for _, tag := range []string{"a", "b", "c", "item:1"} {
			_, err := m.Get(t.Context(), 1, load)
			require.NoError(t, err)
			m.mustLoad(t, 1, tag)
			require.NoError(t, m.cache.Invalidate(t.Context(), core.Tag("unrelated")))
			_, err = m.Get(t.Context(), 1, load)
			require.NoError(t, err)
			m.mustLoad(t, 0, tag)
			require.NoError(t, m.cache.Invalidate(t.Context(), core.Tag(tag)))
		}
	})
}

func TestSetTTLReplacesTheTTLOfTheClass(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		ttl := minute
		load := func(ctx context.Context, id int) (item, error) {
			require.NoError(t, core.SetTTL(ctx, ttl))
			return m.load(ctx, id)
		}
		get := func() {
			_, err := m.Get(t.Context(), 1, load)
			require.NoError(t, err)
		}
		get()
		time.Sleep(minute - 1)
		get()
		m.mustLoad(t, 1, "")
		time.Sleep(1)
		ttl = 0
		get()
		get()
		m.mustLoad(t, 2, "0 means not to store")
	})
}

func TestANoStoreValueIsSharedByItsWaitersOnly(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		load := func(ctx context.Context, id int) (item, error) {
			require.NoError(t, core.NoStore(ctx))
			return m.load(ctx, id)
		}
		release := m.hold()
		one, two := m.async(t.Context(), load), m.async(t.Context(), load)
		synctest.Wait()
		release()
		synctest.Wait()
		require.Equal(t, "one", one.name(t))
		require.Equal(t, "one", two.name(t))
		m.mustLoad(t, 1, "")
		_, err := m.Get(t.Context(), 1, load)
		require.NoError(t, err)
		m.mustLoad(t, 1, "")
	})
}

func TestALoadersBadTagOrTTLIsAnErrorAndNotStored(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		say := func(what func(context.Context) error) (err error) {
			require.NoError(t, m.Invalidate(t.Context(), 1))
			_, _ = m.Get(t.Context(), 1, func(ctx context.Context, id int) (item, error) {
				err = what(ctx)
				return m.load(ctx, id)
			})
			return err
		}
		err := say(func(ctx context.Context) error { return core.AddTags(ctx, "good", "") })
		refused(t, err, "AddTags", "")
		require.Zero(t, m.cache.Stats().Entries, "what cannot be invalidated as asked is not stored")
		err = say(func(ctx context.Context) error { return core.SetTTL(ctx, -time.Second) })
		refused(t, err, "SetTTL", "-1s")
		err = say(func(ctx context.Context) error { return core.Invalidate(ctx, core.Tag("")) })
		refused(t, err, "Tag", "")
	})
	ctx := t.Context()
	require.ErrorIs(t, core.AddTags(ctx, "a"), core.ErrNoScope)
	require.ErrorIs(t, core.SetTTL(ctx, 1), core.ErrNoScope)
	require.ErrorIs(t, core.NoStore(ctx), core.ErrNoScope)
	require.ErrorIs(t, core.Invalidate(ctx, core.All()), core.ErrNoScope)
}

func TestALoaderCanInvalidate(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		_, err := m.Get(t.Context(), 2, m.load)
		require.NoError(t, err)
		_, err = m.Get(t.Context(), 1, func(ctx context.Context, id int) (item, error) {
			return item{}, core.Invalidate(ctx, core.Key("item:2"))
		})
		require.NoError(t, err)
		_, err = m.Get(t.Context(), 2, m.load)
		require.NoError(t, err)
		m.mustLoad(t, 2, "")
	})
}

func manyTags(n int) (tags []string) {
	for i := range n {
		tags = append(tags, "t"+strings.Repeat("x", i))
	}
	return tags
}

func TestAValueWithTooManyTagsIsNotStored(t *testing.T) {
	bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
		n := core.MaxTagsPerEntry
		load := func(ctx context.Context, id int) (item, error) {
			require.NoError(t, core.AddTags(ctx, manyTags(n)...))
			return m.load(ctx, id)
		}
		for range 2 {
			_, err := m.Get(t.Context(), 1, load)
			require.NoError(t, err)
		}
		m.mustLoad(t, 1, "as many as an entry carries")
		require.NoError(t, m.Invalidate(t.Context(), 1))
		n++
		for range 2 {
			_, err := m.Get(t.Context(), 1, load)
			require.NoError(t, err)
		}
		m.mustLoad(t, 2, "more than it carries")
	})
}

// A value that is not stored may be shared, except with readers that came after an
// invalidation of one of its tags, in whatever way the loader named the tag.
func TestWaitersAfterAnInvalidationDoNotShareANoStoreValue(t *testing.T) {
	for name, say := range map[string]func(ctx context.Context){
		"NoStore":              func(ctx context.Context) { _ = core.NoStore(ctx); _ = core.AddTags(ctx, "late") },
		"one tag of two wrong": func(ctx context.Context) { _ = core.AddTags(ctx, "late", "\x00") },
		"too many tags":        func(ctx context.Context) { _ = core.AddTags(ctx, append(manyTags(core.MaxTagsPerEntry), "late")...) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, core.Class{TTL: hour}, func(t *testing.T, m *items) {
				load := func(ctx context.Context, id int) (item, error) {
					v, err := m.load(ctx, id)
					say(ctx)
					return v, err
				}
				release := m.hold()
				leader := m.async(t.Context(), load)
				synctest.Wait()
				m.name.Store("two")
				require.NoError(t, m.cache.Invalidate(t.Context(), core.Tag("late")))
				later := m.async(t.Context(), load)
				synctest.Wait()
				release()
				synctest.Wait()
				require.Equal(t, "one", leader.name(t))
				require.Equal(t, "two", later.name(t), "STALE: it began after the invalidation")
			})
		})
	}
}
