package core_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

func TestShortDeadlinesOfCallersDoNotSuspendTheTier(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		// given
		f.away(4 * time.Millisecond)
		a := f.far("a")
		w, err := core.NewWriteBehind(a.Map, func(context.Context, []core.Change[int, int64]) error { return nil },
			core.WriteBehindOptions[int, int64]{
				Merge: func(old, change int64) int64 { return old + change },
				Load:  func(context.Context, int) (int64, error) { return 0, core.ErrNotFound },
			})
		require.NoError(t, err)
		failed := 0
		for id := range 200 {
			// when
			hurry, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_ = w.Delete(hurry, 1000+id)
			cancel()
			// then
			if err := w.Put(t.Context(), id, 1); err != nil {
				failed++
			}
		}
		require.Zero(t, failed)
		require.Zero(t, a.cache.Stats().Pending, "what was too late is known not to have happened")
		require.NoError(t, w.Close(t.Context()))
	})
}
