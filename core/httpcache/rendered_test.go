package httpcache

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Responses share what their hits add. More ages and lifetimes than the table has places have
// the same place.
func TestHitsOfAnyAgeAndLifetimeHaveTheirOwnFields(t *testing.T) {
	const second = int64(time.Second)
	var all sync.WaitGroup
	for worker := range int64(4) {
		all.Go(func() {
			for i := range int64(4 * len(renderings)) {
				age, ttl := (i*7+worker)%3_000, i%1_500-10
				r := &response{validators: validators{initialAge: age % 5, born: -(age - age%5) * second}}
				fields := r.hitFields(0, ttl*second)
				if want := fmt.Sprint(age); fields[0].Name != "Age" || len(fields[0].Values) != 1 || fields[0].Values[0] != want {
					t.Errorf("Age: %v in place of %s", fields[0], want)
				}
				if want := fmt.Sprint("Larder; hit; ttl=", ttl); fields[1].Name != cacheStatus || fields[1].Values[0] != want {
					t.Errorf("Cache-Status: %v in place of %s", fields[1], want)
				}
			}
		})
	}
	all.Wait()
}

func TestHitsOfOneSecondShareTheirFields(t *testing.T) {
	one, other := &response{}, &response{body: []byte("other")}
	first := one.hitFields(0, int64(time.Hour))
	require.Same(t, &first[0], &other.hitFields(int64(time.Second)-1, int64(time.Hour+time.Second)-1)[0])
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = other.hitFields(0, int64(time.Hour)) }))
	// An append to a shared value makes a copy.
	for _, f := range first {
		require.Equal(t, len(f.Values), cap(f.Values), f.Name)
	}
}

func TestHitsOfOneLifetimeHavePlacesOfTheirOwn(t *testing.T) {
	for _, lifetime := range []int64{60, 3_600, 4_000} {
		places := map[*atomic.Pointer[rendered]]bool{}
		for age := range lifetime {
			places[renderingOf(age, lifetime-age)] = true
		}
		require.Len(t, places, int(lifetime))
	}
}

func TestValuesOfAStoredFieldHaveNoRoomForMore(t *testing.T) {
	r := &response{fields: []Field{{Name: "A", Values: append(make([]string, 0, 4), "1", "2")}, {Name: "B", Mode: Remove}}}
	r.addFields([]Field{{Name: "C", Values: []string{}}, {Name: "D", Values: []string{"3"}}})
	_ = append(r.fields[0].Values, "more")
	_ = append(r.fields[2].Values, "more")
	require.Equal(t, []Field{
		{Name: "A", Values: []string{"1", "2"}}, {Name: "B", Mode: Remove}, {Name: "C", Values: []string{}}, {Name: "D", Values: []string{"3"}},
	}, r.fields)
}

func TestAResponseFitsItsSizeClass(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(response{}), uintptr(288))
}
