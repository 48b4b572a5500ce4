package core_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// A miss answers the value that a hit would answer.

// answered gets what a loader returned in every way there is, and demands that all
// are one.
func answered[V any](v V, opts ...option[V]) func(t *testing.T) {
	return func(t *testing.T) {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprint("shared: ", shared), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { everywhere(t, v, shared, opts...) })
			})
		}
	}
}

func everywhere[V any](t *testing.T, v V, shared bool, opts ...option[V]) {
	t.Helper()
	o := core.Options{Classes: core.Classes{"c": {TTL: minute, StaleWhileRevalidate: minute, StaleIfError: hour}}}
	server := memtier.New(memtier.Config{})
	defer server.Close()
	openMap := func(name string) *core.Map[int, V] {
		if shared {
			o.Remote = server.Tier(name)
		}
		m, err := core.NewMap(open(t, o), with(core.MapOptions[int, V]{Class: "c", Prefix: "row"}, opts...))
		require.NoError(t, err)
		return m
	}
	m, n := openMap("a"), openMap("b")
	load := func(context.Context, int) (V, error) { time.Sleep(time.Second); return v, nil }
	many := func(_ context.Context, ids []int) (map[int]V, error) {
		time.Sleep(time.Second)
		values := make(map[int]V)
		for _, id := range ids {
			values[id] = v
		}
		return values, nil
	}
	joined := make(chan V)
	go func() {
		time.Sleep(time.Millisecond)
		v, err := m.Get(t.Context(), 1, load)
		require.NoError(t, err)
		joined <- v
	}()
	miss, err := m.Get(t.Context(), 1, load)
	require.NoError(t, err)
	same := func(v V, err error) {
		t.Helper()
		require.NoError(t, err)
		require.Equal(t, miss, v)
	}
	same(<-joined, nil)
	same(m.Get(t.Context(), 1, load))
	same(n.Get(t.Context(), 1, load)) // from the tier, if there is one
	r, err := m.Lookup(t.Context(), 2, load)
	same(r.Value, err)
	values, err := m.GetMany(t.Context(), []int{1, 3}, many)
	same(values[1], err)
	same(values[3], err)
	_, err = m.Warm(t.Context(), func(yield func(int) bool) { yield(4) }, many, core.WarmOptions{})
	require.NoError(t, err)
	same(m.Get(t.Context(), 4, load))
	require.NoError(t, m.Put(t.Context(), 5, v))
	same(m.Get(t.Context(), 5, load))
	require.NoError(t, m.Write(t.Context(), 6, v, func(context.Context, int, V) error { return nil }))
	same(m.Get(t.Context(), 6, load))
	same(m.Get(t.Context(), 7, func(ctx context.Context, _ int) (V, error) { return v, core.NoStore(ctx) }))
	time.Sleep(90 * time.Second) // stale: refreshed
	same(m.Get(t.Context(), 1, load))
	time.Sleep(2 * time.Second)
	offered := *new(V)
	time.Sleep(3 * minute)
	same(m.Get(t.Context(), 1, func(ctx context.Context, _ int) (V, error) {
		offered, _, _ = core.StaleValue[V](ctx)
		return v, nil
	}))
	same(offered, nil)
	time.Sleep(3 * minute)
	same(m.Get(t.Context(), 1, func(context.Context, int) (V, error) { return v, errDown })) // in its place
}

type (
	optional struct {
		List  []int          `json:",omitempty"`
		Map   map[string]int `json:",omitempty"`
		Time  time.Time      `json:",omitzero"`
		Bytes []byte
	}
	shares struct{ A, B *int }
	loose  struct {
		Any  any
		List []any
		Map  map[string]any
	}
	halved string
)

// UnmarshalText decodes less than was encoded.
func (h halved) MarshalText() ([]byte, error) { return []byte(h), nil }
func (h *halved) UnmarshalText(b []byte) error {
	*h = halved(b[:len(b)/2])
	return nil
}

// upTo is a codec that loses what stands behind the fourth byte.
type upTo struct{ core.Codec }

func (upTo) Marshal(v any) ([]byte, error) { return []byte(v.(string))[:4], nil }
func (upTo) Unmarshal(data []byte, v any) error {
	*v.(*string) = string(data)
	return nil
}

func TestAMissAnswersTheValueOfTheNextHit(t *testing.T) {
	seven := 7
	for name, test := range map[string]func(t *testing.T){
		"invalid UTF-8":          answered("caf\xe9"),
		"an integer in any":      answered[any](int64(1<<53 + 1)),
		"types in any":           answered(loose{int8(1), []any{seven, item{Name: "x"}}, map[string]any{"n": int64(1<<53 + 1)}}),
		"a time":                 answered(time.Now()),
		"a time in a struct":     answered(optional{Time: time.Now().In(time.FixedZone("X", 3600))}),
		"empty, not nil":         answered(optional{List: []int{}, Map: map[string]int{}, Bytes: []byte{}}),
		"nil":                    answered(optional{}),
		"a nil pointer":          answered[*item](nil),
		"one pointer twice":      answered(shares{&seven, &seven}),
		"json.Number":            answered(json.Number("1e3")),
		"a raw message":          answered(json.RawMessage(`{ "a":  1 }`)),
		"its own methods":        answered(halved("abcdef")),
		"a number of its own":    answered(*big.NewInt(1)),
		"numbers in a map":       answered(map[string]*big.Int{"a": big.NewInt(1)}),
		"a codec that loses":     answered("abcdef", encoded[string](upTo{})),
		"a clone":                answered("caf\xe9", cloned(func(s string) string { return s })),
		"a clone of what is any": answered(map[string]any{"a": 1}, cloned(func(m map[string]any) map[string]any { return m })),
	} {
		t.Run(name, test)
	}
}

// Types of which JSON loses a part.

type (
	inner   struct{ Name string }
	hides   struct{ secret string }
	embeds  struct{ inner }
	embedsP struct{ *inner }
	Stamped struct {
		time.Time
		Name string
	}
	Twice struct {
		A
		B
	}
	A      struct{ ID int }
	B      struct{ ID int }
	Shadow struct {
		A
		ID string
	}
	Renamed struct {
		A
		Own string `json:"ID"`
	}
	textOnly int
	locked   struct {
		sync.Mutex
		mu   sync.RWMutex //nolint:unused // a lock that JSON leaves out
		once sync.Once    //nolint:unused // likewise
		_    [3]int
		none struct{}
		Name string
	}
	tree struct {
		Name     string
		Children []*tree
		Parent   *tree
	}
	owned struct{ text string }
	shape interface{ Area() float64 }
)

func (o owned) MarshalText() ([]byte, error)     { return []byte(o.text), nil }
func (o *owned) UnmarshalText(b []byte) error    { o.text = string(b); return nil }
func (c textOnly) MarshalText() ([]byte, error)  { return nil, nil }
func (c *textOnly) UnmarshalText(_ []byte) error { return nil }
func newMapOf[V any](opts ...option[V]) func(t *testing.T, o core.Options) error {
	return func(t *testing.T, o core.Options) error {
		t.Helper()
		o.Classes = core.Classes{"c": {TTL: hour}}
		_, err := core.NewMap(open(t, o), with(core.MapOptions[int, V]{Class: "c", Prefix: "row"}, opts...))
		return err
	}
}

func TestATypeThatJSONTruncatesIsRefusedWithThePartsName(t *testing.T) {
	_ = hides{secret: ""}
	_ = locked{none: struct{}{}}
	for field, open := range map[string]func(*testing.T, core.Options) error{
		"core_test.hides.secret":                newMapOf[hides](),
		"*core_test.hides.secret":               newMapOf[*hides](),
		"[]core_test.hides[].secret":            newMapOf[[]hides](),
		"map[string]core_test.hides[].secret":   newMapOf[map[string]hides](),
		"struct { In []*core_test.hides }.In[]": newMapOf[struct{ In []*hides }](),
		"struct { P string \"json:\\\"-\\\"\" }.P": newMapOf[struct {
			P string `json:"-"`
		}](),
		"struct { F func() }.F":    newMapOf[struct{ F func() }](),
		"struct { C chan int }.C":  newMapOf[struct{ C chan int }](),
		"complex128":               newMapOf[complex128](),
		"struct { Err error }.Err": newMapOf[struct{ Err error }](),
		"core_test.shape":          newMapOf[shape](),
		"map[core_test.inner]int":  newMapOf[map[inner]int](),
		"core_test.embedsP.inner":  newMapOf[embedsP](),
		"core_test.Stamped.Name":   newMapOf[Stamped](),
		"*core_test.Stamped.Name":  newMapOf[*Stamped](),
		"core_test.Twice.A.ID":     newMapOf[Twice](),
		"core_test.Shadow.A.ID":    newMapOf[Shadow](),
		"core_test.Renamed.A.ID":   newMapOf[Renamed](),
		"map[string]big.Int[].neg": newMapOf[map[string]big.Int](),
		"url.URL.User.username":    newMapOf[url.URL](),
		"struct { D time.Time; U url.URL }.U": newMapOf[struct {
			D time.Time
			U url.URL
		}](),
	} {
		t.Run(field, func(t *testing.T) {
			var bad *core.ConfigError
			require.ErrorAs(t, open(t, core.Options{}), &bad)
			require.Contains(t, bad.Field, field)
			require.Contains(t, bad.Allowed, "MapOptions.Codec")
		})
	}
}

func TestATypeThatJSONKeepsIsAccepted(t *testing.T) {
	for name, open := range map[string]func(*testing.T, core.Options) error{
		"embedded":         newMapOf[embeds](),
		"own methods":      newMapOf[owned](),
		"text only":        newMapOf[map[textOnly]textOnly](),
		"locks and blanks": newMapOf[*locked](),
		"a tree":           newMapOf[tree](),
		"any":              newMapOf[any](),
		"nullable":         newMapOf[sql.NullString](),
		"generic":          newMapOf[sql.Null[time.Time]](),
		"an address":       newMapOf[map[netip.Addr]netip.Prefix](),
		"a number":         newMapOf[struct{ N big.Int }](),
		"an array":         newMapOf[[16]byte](),
		"no value":         newMapOf[struct{}](),
		"another codec":    newMapOf[hides](encoded[hides](struct{ core.Codec }{core.JSON})),
		"a clone":          newMapOf[hides](cloned(func(h hides) hides { return h })),
	} {
		t.Run(name, func(t *testing.T) { require.NoError(t, open(t, core.Options{})) })
	}
}

func TestACloneDoesNotAllowATypeThatMustBeEncoded(t *testing.T) {
	clone := cloned(func(h hides) hides { return h })
	server := memtier.New(memtier.Config{})
	defer server.Close()
	require.ErrorContains(t, newMapOf[hides](clone)(t, core.Options{Remote: server.Tier("a")}), "secret")

	m, err := core.NewMap(open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}}), with(core.MapOptions[int, hides]{Class: "c", Prefix: "row"}, clone))
	require.NoError(t, err)
	for range 2 {
		v, err := m.Get(t.Context(), 1, func(context.Context, int) (hides, error) { return hides{"s"}, nil })
		require.NoError(t, err)
		require.Equal(t, hides{"s"}, v)
	}
	_, err = core.NewWriteBehind(m, func(context.Context, []core.Change[int, hides]) error { return nil }, core.WriteBehindOptions[int, hides]{})
	require.ErrorContains(t, err, "secret", "a queue encodes what waits in it")
}

// Values that cannot be kept.

// lossy is a codec that encodes what it does not decode.
type lossy struct{ core.Codec }

func (lossy) Unmarshal([]byte, any) error { return errors.New("it does not decode") }

func TestAValueThatDoesNotEncodeIsAnsweredAndNotStored(t *testing.T) {
	for name, codec := range map[string]core.Codec{
		"it does not encode": nil, "it does not decode again": lossy{core.JSON},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				c, err := core.New(core.Options{
					Classes: core.Classes{"c": {TTL: minute, StaleWhileRevalidate: hour}}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				})
				require.NoError(t, err)
				defer func() { require.NoError(t, c.Close()) }()
				m, err := core.NewMap(c, core.MapOptions[int, float64]{Class: "c", Prefix: "row", Codec: codec})
				require.NoError(t, err)
				nan := func(context.Context, int) (float64, error) { return math.NaN(), nil }
				for range 2 {
					v, err := m.Get(t.Context(), 1, nan)
					require.NoError(t, err)
					require.True(t, math.IsNaN(v))
				}
				values, err := m.GetMany(t.Context(), []int{1, 2}, func(context.Context, []int) (map[int]float64, error) {
					return map[int]float64{1: math.NaN(), 2: math.NaN()}, nil
				})
				require.NoError(t, err)
				require.Len(t, values, 2)
				require.EqualValues(t, 4, c.Stats().Unencodable)
				require.Zero(t, c.Stats().Entries)
				require.Zero(t, c.Stats().LoadErrors)
				require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("level=ERROR")), log.String())
				require.Contains(t, log.String(), "map=row")
				require.ErrorContains(t, m.Put(t.Context(), 1, math.NaN()), "a value of row")
				if name != "it does not encode" {
					return
				}
				// The value that it replaces is not answered any more.
				_, err = m.Get(t.Context(), 3, func(context.Context, int) (float64, error) { return 1, nil })
				require.NoError(t, err)
				time.Sleep(2 * minute)
				_, err = m.Get(t.Context(), 3, nan) // stale: refreshed behind it
				require.NoError(t, err)
				synctest.Wait()
				v, err := m.Get(t.Context(), 3, nan)
				require.NoError(t, err)
				require.True(t, math.IsNaN(v))
			})
		})
	}
}

// raw is a codec whose bytes are the value's own.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

func TestTheBytesOfACodecAreCopied(t *testing.T) {
	m, err := core.NewMap(open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}}), core.MapOptions[int, []byte]{Class: "c", Prefix: "row", Codec: raw{}})
	require.NoError(t, err)
	db := []byte("one")
	load := func(context.Context, int) ([]byte, error) { return db, nil }
	v, err := m.Get(t.Context(), 1, load)
	require.NoError(t, err)
	copy(v, "two")
	copy(db, "six")
	v, err = m.Get(t.Context(), 1, load)
	require.NoError(t, err)
	require.Equal(t, "one", string(v))
	require.NoError(t, m.Put(t.Context(), 2, db))
	copy(db, "two")
	v, err = m.Get(t.Context(), 2, load)
	require.NoError(t, err)
	require.Equal(t, "six", string(v))
}
