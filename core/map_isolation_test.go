package core_test

import (
	"context"
	"encoding/json"
	"math/big"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/test/spoil"
)

type (
	Embedded struct{ Ids []int }
	ofKind   struct{ Value any }
	linked   struct {
		Name string
		Next *linked
		Kids []linked
		By   map[string]*linked
	}
	generic[T any] struct{ Values []T }
	manyKinds      struct {
		Embedded

		Lists [][]string
		Rows  []item
		Ref   *item
		Refs  []*int
		Map   map[string][]int
		Any   any
		Raw   json.RawMessage
		Time  time.Time
		At    *time.Time
		Array [2][]byte
		Next  *manyKinds
		Of    generic[*item]
		Nil   []string
		Empty []string
	}
	guarded struct {
		Lock sync.RWMutex
		List []int
	}
	unpacked struct {
		manyKinds

		Amount *big.Int
		Host   netip.Addr
	}
	// twice decodes both of its lists into one.
	twice struct{ A, B []int }
)

func (w *twice) UnmarshalJSON(data []byte) error {
	err := json.Unmarshal(data, &w.A)
	w.B = w.A
	return err
}

func (w twice) MarshalJSON() ([]byte, error) { return json.Marshal(w.A) }

// isolated gets a value in every way, changes all of it, and demands that the next caller
// gets what the first one got.
func isolated[V any](v V, opts ...option[V]) func(t *testing.T) {
	return func(t *testing.T) {
		server := memtier.New(memtier.Config{})
		defer server.Close()
		want, err := json.Marshal(v)
		require.NoError(t, err)
		for name, o := range map[string]core.Options{"in process": {}, "shared": {Remote: server.Tier("a")}, "remote": {Remote: server.Tier("b")}} {
			o.Classes = core.Classes{"c": {TTL: hour}}
			m, err := core.NewMap(open(t, o), with(core.MapOptions[int, V]{Class: "c", Prefix: "row"}, opts...))
			require.NoError(t, err)
			load := func(context.Context, int) (own V, err error) { return own, json.Unmarshal(want, &own) }
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range 5 {
						got, err := m.Get(t.Context(), 1, load)
						require.NoError(t, err, name)
						text, err := json.Marshal(&got)
						require.NoError(t, err)
						require.JSONEq(t, string(want), string(text), name)
						spoil.Value(&got)
					}
				})
			}
			all.Wait()
		}
	}
}

func TestACallersChangeIsSeenByNoOther(t *testing.T) {
	seven, at := 7, time.Date(2024, 2, 29, 12, 0, 0, 1, time.FixedZone("", 3600))
	everything := &manyKinds{
		Embedded: Embedded{[]int{1, 2}}, Lists: [][]string{{"a"}, nil, {}}, Rows: []item{{Name: "x", Tags: []string{"t"}}},
		Ref: &item{Name: "ref", Tags: []string{"r"}}, Refs: []*int{&seven, nil}, Map: map[string][]int{"a": {1}, "b": nil},
		Any: map[string]any{"list": []any{1.5, "s", nil, map[string]any{"deep": true}}}, Raw: json.RawMessage(`{"a":[1]}`),
		Time: at, At: &at, Array: [2][]byte{{1}, {2, 3}}, Of: generic[*item]{[]*item{{Name: "g"}}}, Empty: []string{},
	}
	whole := unpacked{*everything, big.NewInt(1 << 40), netip.MustParseAddr("192.0.2.1")}
	for name, test := range map[string]func(t *testing.T){
		"a struct of all kinds":     isolated(everything),
		"kinds that are not packed": isolated(&whole),
		"another codec":             isolated(item{Name: "x", Tags: []string{"a", "b"}}, encoded[item](gobCodec{})),
		"a linked list":             isolated(linked{"a", &linked{Name: "b"}, []linked{{Name: "c", Kids: []linked{}}}, map[string]*linked{"d": {Name: "e"}}}),
		"bytes":                     isolated([]byte{1, 2, 3}),
		"a raw message":             isolated(json.RawMessage(`{"a":[1,2]}`)),
		"any":                       isolated[any](map[string]any{"a": []any{"b"}}),
		"any in a struct":           isolated(ofKind{[]any{1.5}}),
		"a list of pointers":        isolated([]*item{{Name: "x"}, nil}),
		"a map of pointers":         isolated(map[string]*item{"a": {Tags: []string{"t"}}}),
		"a map of maps":             isolated(map[int]map[string]bool{1: {"a": true}}),
		"one list in two fields":    isolated(twice{A: []int{1, 2}}),
		"a big number":              isolated(big.NewInt(1 << 50)),
		"an address":                isolated(netip.MustParseAddr("2001:db8::1")),
		"a time":                    isolated(at),
		"a lock":                    isolated(&guarded{List: []int{1}}),
	} {
		t.Run(name, test)
	}
}

// A type's own decoder may share memory within one value: each hit decodes it.
func TestAValueThatDecodesItselfKeepsItsShape(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"c": {TTL: hour}}})
	m, err := core.NewMap(c, core.MapOptions[int, twice]{Class: "c", Prefix: "row"})
	require.NoError(t, err)
	for range 3 {
		v, err := m.Get(t.Context(), 1, func(context.Context, int) (twice, error) { return twice{A: []int{1}}, nil })
		require.NoError(t, err)
		require.Same(t, &v.A[0], &v.B[0])
	}
}
