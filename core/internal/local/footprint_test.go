package local

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type links struct {
	Name string
	Next *links
	Tags []string
	Any  any
}

func TestAFootprintIsTheMemoryThatAValueTakes(t *testing.T) {
	for name, make := range map[string]func(i int) any{
		"a string":   func(i int) any { s := strings.Repeat("x", 100+i%10); return &s },
		"bytes":      func(int) any { b := make([]byte, 1000); return &b },
		"a struct":   func(int) any { return &links{Name: strings.Repeat("x", 20), Tags: []string{strings.Repeat("a", 5)}} },
		"a list":     func(int) any { return &links{Next: &links{Next: &links{Any: &links{}}}} },
		"any":        func(int) any { var v any = []any{1.5, strings.Repeat("b", 9), nil}; return &v },
		"many words": func(int) any { s := make([]int, 300); return &s },
	} {
		t.Run(name, func(t *testing.T) {
			const n = 10_000
			keep := [n]any{}
			before := heapInUse()
			for i := range keep {
				keep[i] = make(i)
			}
			taken := heapInUse() - before
			require.InEpsilon(t, taken/n, Footprint(keep[0]), 0.1)
			runtime.KeepAlive(&keep)
		})
	}
}

func TestAFootprintCountsWhatIsSharedOnce(t *testing.T) {
	shared := strings.Repeat("x", 1000)
	require.InDelta(t, 1024+2*16, Footprint(&[]string{shared, shared}), 64)
	circle := &links{}
	circle.Next = circle
	require.Equal(t, Footprint(&links{}), Footprint(circle))
	long := make([]any, 10*maxParts)
	require.Positive(t, Footprint(&long), "it is bounded")
	require.Zero(t, Footprint(nil))
}
