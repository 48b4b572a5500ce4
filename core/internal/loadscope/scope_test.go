package loadscope_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core/internal/loadscope"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAContextReturnsItsScope(t *testing.T) {
	require.Nil(t, loadscope.From(t.Context()))
	s := new(loadscope.Scope)
	ctx, cancel := context.WithCancel(loadscope.With(t.Context(), s))
	defer cancel()
	require.Same(t, s, loadscope.From(ctx))
	inner := new(loadscope.Scope)
	require.Same(t, inner, loadscope.From(loadscope.With(ctx, inner)), "the innermost scope counts")
	// Frameworks look up values by a plain string.
	require.Same(t, s, ctx.Value(loadscope.Key))
	require.Nil(t, loadscope.From(context.WithValue(t.Context(), loadscope.Key, "something else"))) //nolint:staticcheck // on purpose
}

func TestANewScopeIsEmpty(t *testing.T) {
	require.Equal(t, loadscope.Said{}, (&loadscope.Scope{Owner: loadscope.Owner{MaxTags: 3}}).Said())
}

func TestTheLastTTLAndAllTagsCount(t *testing.T) {
	s := &loadscope.Scope{Owner: loadscope.Owner{MaxTags: 3}}
	s.AddTags([]string{"a", "b", "a"})
	s.AddTags([]string{"b", "c"})
	s.SetTTL(time.Minute)
	s.SetTTL(0)
	said := s.Said()
	require.Equal(t, loadscope.Said{Tags: []string{"a", "b", "c"}, TTLSet: true}, said)
	said.Tags[0] = "changed"
	require.Equal(t, "a", s.Said().Tags[0], "a snapshot does not share the scope's tags")
	s.SetNoStore()
	require.True(t, s.Said().NoStore)
	require.False(t, s.Said().Unnamed)
}

func TestAScopeWithTooManyTagsIsNeitherStoredNorShared(t *testing.T) {
	s := &loadscope.Scope{Owner: loadscope.Owner{MaxTags: 3}}
	s.AddTags([]string{"a", "b", "c", "d"})
	said := s.Said()
	require.True(t, said.NoStore)
	require.True(t, said.Unnamed)
	require.Len(t, said.Tags, 3)
	s = new(loadscope.Scope)
	s.SetUnnamed()
	require.True(t, s.Said().NoStore)
	require.True(t, s.Said().Unnamed)
}

func TestAScopeIsSafeForConcurrentUse(t *testing.T) {
	s := &loadscope.Scope{Owner: loadscope.Owner{MaxTags: 1000}}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range 10 {
				s.AddTags([]string{fmt.Sprint(i, j), "shared"})
				s.SetTTL(time.Second)
				_ = s.Said()
			}
		}()
	}
	wg.Wait()
	require.Len(t, s.Said().Tags, 101)
}
