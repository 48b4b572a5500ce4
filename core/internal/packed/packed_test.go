package packed_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/packed"
	"github.com/larderhq/larder/core/internal/test/spoil"
)

type (
	Numbers struct {
		B    bool
		I    int
		I8   int8
		I16  int16
		I32  int32
		I64  int64
		U    uint
		U8   uint8
		U16  uint16
		U32  uint32
		U64  uint64
		F32  float32
		F64  float64
		Text string
	}
	Base  struct{ ID, Name string }
	inner struct{ Deep []int }
	mixed struct {
		Base
		inner
		*Numbers
		List   []string
		Empty  []string
		Nil    []string
		Lists  [][]int
		Bytes  []byte
		Raw    json.RawMessage
		Rows   []Base
		Refs   []*Base
		Map    map[string]int
		Nested map[string][]Base
		ByID   map[int]Base
		Array  [3][]string
		Any    any
		Time   time.Time
		At     *time.Time
		Next   *mixed
		Dur    time.Duration
		Num    json.Number
		IP     net.IP
		Lock   sync.Mutex
	}
	generic[T any] struct{ Value []T }
	tree           struct {
		Kids []tree
		By   map[string]*tree
	}
	cents   int64  // with methods of its own
	halved  string // decodes less than was encoded
	fixed   [4]byte
	private struct {
		a string
		b int8
	}
)

func (c cents) MarshalText() ([]byte, error)     { return fmt.Appendf(nil, "%d.%02d", c/100, c%100), nil }
func (h *halved) UnmarshalText(b []byte) error   { *h = halved(b[:len(b)/2]); return nil }
func (p *private) UnmarshalJSON(b []byte) error  { p.a, p.b = string(b), int8(len(b)); return nil }
func (c *cents) UnmarshalText(text []byte) error { *c = cents(len(text)); return nil }

const full = `{"ID":"a","Name":"b","Deep":[1,2],"B":true,"I":-5,"I8":-128,"I16":-32768,"I32":2147483647,"I64":-9223372036854775808,
	"U":7,"U8":255,"U16":65535,"U32":4294967295,"U64":18446744073709551615,"F32":1.5,"F64":-0.0,"Text":"x\u00e9",
	"List":["a","","ccc"],"Empty":[],"Nil":null,"Lists":[[1],[],null],"Bytes":"AP8=","Raw":{"a": 1},"Rows":[{"ID":"1"},{"Name":"2"}],
	"Refs":[{"ID":"r"},null],"Map":{"a":1,"b":2},"Nested":{"x":[{"ID":"1"}],"y":null},"ByID":{"7":{"ID":"seven"}},"Array":[["a"],null,[]],
	"Any":{"a":[1,"b",true,false,null,{}],"b":2.5},"Time":"2024-02-29T23:59:60.123456789Z","At":"2024-01-01T00:00:00+05:30",
	"Next":{"ID":"next","Any":[]},"Dur":5,"Num":1e3,"IP":"192.0.2.1"}`

// decoded returns cases of what encoding/json decodes, by type.
func decoded() map[string]func() any {
	of := func(make func() any, text string) func() any {
		return func() any {
			box := make()
			if err := json.Unmarshal([]byte(text), box); err != nil {
				panic(err)
			}
			return box
		}
	}
	text := strings.ReplaceAll(full, "23:59:60", "23:59:59")
	return map[string]func() any{
		"everything":      of(func() any { return new(mixed) }, text),
		"zero":            of(func() any { return new(mixed) }, `{}`),
		"numbers":         of(func() any { return new(Numbers) }, text),
		"string":          of(func() any { return new(string) }, `""`),
		"number":          of(func() any { return new(int) }, `-1`),
		"bool":            of(func() any { return new(bool) }, `true`),
		"any":             of(func() any { return new(any) }, text),
		"null":            of(func() any { return new(any) }, `null`),
		"slice of any":    of(func() any { return new([]any) }, `[1,[2,[3]],{"a":{"b":[null]}}]`),
		"map of slices":   of(func() any { return new(map[string][]string) }, `{"a":["b"],"":null}`),
		"pointer":         of(func() any { return new(**Base) }, `{"ID":"x"}`),
		"nil pointer":     of(func() any { return new(*Base) }, `null`),
		"empty struct":    of(func() any { return new(struct{}) }, `{}`),
		"empty structs":   of(func() any { return new([]struct{}) }, `[{},{}]`),
		"generic":         of(func() any { return new(generic[*Base]) }, `{"Value":[{"ID":"g"}]}`),
		"a tree":          of(func() any { return new(tree) }, `{"Kids":[{"Kids":[]},{}],"By":{"x":{"Kids":[{}]},"y":null}}`),
		"its own text":    of(func() any { return new([]cents) }, `["1.25"]`),
		"less than it":    of(func() any { return new(halved) }, `"abcdef"`),
		"private fields":  of(func() any { return new(private) }, `"abc"`),
		"keys with text":  of(func() any { return new(map[cents]int) }, `{"1.25":1,"100.25":2}`),
		"an array":        of(func() any { return new(fixed) }, `[1,2,3,4]`),
		"a day":           of(func() any { return new(time.Time) }, `"0001-01-01T00:00:00Z"`),
		"a time of hours": of(func() any { return new(time.Time) }, `"2024-06-01T10:00:00.5-03:00"`),
		"a large text":    of(func() any { return new(string) }, `"`+strings.Repeat("x", 100000)+`"`),
		"a long list":     of(func() any { return new([]int) }, `[`+strings.Repeat("1,", 1000)+`1]`),
	}
}

func pack(t *testing.T, box any) (*packed.Type, packed.Value) {
	t.Helper()
	typ, ok := packed.Of(reflect.TypeOf(box).Elem())
	require.True(t, ok)
	v, ok := typ.Pack(box)
	require.True(t, ok)
	return typ, v
}

func TestAnUnpackedValueIsWhatWasDecoded(t *testing.T) {
	for name, decode := range decoded() {
		t.Run(name, func(t *testing.T) {
			box := decode()
			typ, v := pack(t, box)
			spoil.Value(box) // the packed value shares nothing with it
			runtime.GC()
			into := reflect.New(reflect.TypeOf(box).Elem()).Interface()
			typ.UnpackBox(v, into)
			require.Equal(t, decode(), into)
			require.Positive(t, v.Size())
		})
	}
}

func TestAChangeOfAnUnpackedValueIsSeenByNoOther(t *testing.T) {
	for name, decode := range decoded() {
		t.Run(name, func(t *testing.T) {
			box := decode()
			typ, v := pack(t, box)
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for range 3 {
						into := reflect.New(reflect.TypeOf(box).Elem()).Interface()
						typ.UnpackBox(v, into)
						require.Equal(t, box, into)
						spoil.Value(into)
					}
				})
			}
			all.Wait()
		})
	}
}

func TestATypeThatPackingMayNotKeepIsRefused(t *testing.T) {
	for _, v := range []any{
		new(chan int), new(func()), new(fmt.Stringer), new(complex128), new(big.Int), new(netip.Addr), new(sync.Map),
		new(strings.Builder), new(struct{ private []int }), new(struct{ list map[string]int }), new([]*big.Int), new(map[any]int),
		new(struct{ at *time.Time }), new(sync.Pool), new(struct{ address uintptr }), new(ownList), new(map[*int]int),
	} {
		_, ok := packed.Of(reflect.TypeOf(v).Elem())
		require.False(t, ok, "%T", v)
	}
}

// ownList decodes itself into lists that may be one.
type ownList struct{ A, B []int }

func (o *ownList) UnmarshalJSON([]byte) error { o.A = []int{1}; o.B = o.A; return nil }

func TestAValueThatPackingCannotKeepIsRefused(t *testing.T) {
	list := any([]int{1})
	number := any(7)
	named := time.Now().In(time.FixedZone("X", 3600))
	monotonic := time.Now()
	for _, box := range []any{&list, &number, &named, &monotonic} {
		typ, ok := packed.Of(reflect.TypeOf(box).Elem())
		require.True(t, ok)
		_, ok = typ.Pack(box)
		require.False(t, ok, "%v", reflect.ValueOf(box).Elem())
	}
}

func TestUnpackingAllocatesOnlyWhatCanBeChanged(t *testing.T) {
	box := &Numbers{Text: "text"}
	typ, v := pack(t, box)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		var n Numbers
		packed.Unpack(typ, v, &n)
	}))
	lists := &[]string{"a", "b"}
	typ, v = pack(t, lists)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		var n []string
		packed.Unpack(typ, v, &n)
	}), 1.0)
}

func FuzzUnpackingGivesWhatWasPacked(f *testing.F) {
	f.Add(full)
	f.Add(`{"Any":[[[]]]}`)
	typ, _ := packed.Of(reflect.TypeFor[mixed]())
	f.Fuzz(func(t *testing.T, text string) {
		var in, again, out mixed
		if json.Unmarshal([]byte(text), &in) != nil || json.Unmarshal([]byte(text), &again) != nil {
			return
		}
		v, ok := typ.Pack(&in)
		if !ok {
			return
		}
		packed.Unpack(typ, v, &out)
		require.Equal(t, &again, &out)
	})
}

func BenchmarkUnpack(b *testing.B) {
	type row struct {
		ID          int64
		Name, Email string
		Price       float64
		Tags        []string
	}
	box := &row{42, "A chair of oak", "chairs@shop.example", 129.9, []string{"chair", "oak", "indoor"}}
	typ, _ := packed.Of(reflect.TypeFor[row]())
	v, _ := typ.Pack(box)
	b.Run("packed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r row
			packed.Unpack(typ, v, &r)
		}
	})
	data, _ := json.Marshal(box)
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r row
			_ = json.Unmarshal(data, &r)
		}
	})
}
