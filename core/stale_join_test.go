package core_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// An entry that a load renews, or reads, was legal at that time, and may be stale by
// MaxStaleness. A reader that joins later must not get a value that is too old for it.
func TestAReaderAfterAnInvalidationDoesNotShareAValidation(t *testing.T) {
	for name, made := range map[string]func(ctx context.Context, b *instance) (int64, error){
		"renewed": func(ctx context.Context, _ *instance) (int64, error) {
			_, _, ok := core.StaleValue[int64](ctx)
			require.True(t, ok)
			return 0, core.ErrNotModified
		},
		"nested": func(_ context.Context, b *instance) (int64, error) { return b.get(8), nil },
	} {
		t.Run(name, func(t *testing.T) {
			share(t, func(t *testing.T, f *fleet) {
				a := f.instance("a")
				b := f.instance("b", func(o *core.Options) {
					o.Classes = core.Classes{"c": {TTL: 10 * time.Minute, StaleIfError: time.Hour, LoadTimeout: 10 * time.Second}}
				})
				f.data.Store(1)
				require.EqualValues(t, 1, b.get(7))
				if name == "renewed" {
					time.Sleep(10 * time.Minute)
				}
				require.EqualValues(t, 1, b.get(8))
				if name == "nested" {
					require.NoError(t, b.Invalidate(t.Context(), 7))
				}
				f.server.SetFaults(memtier.Faults{HintLost: 1})
				f.data.Store(2)
				require.NoError(t, a.Invalidate(t.Context(), 7, 8))
				f.server.Down(true)
				time.Sleep(5 * time.Millisecond)

				goOn, leader, joiner := make(chan struct{}), make(chan int64, 1), make(chan int64, 1)
				go func() {
					v, err := b.Get(t.Context(), 7, func(ctx context.Context, _ int) (int64, error) {
						v, err := made(ctx, b)
						<-goOn
						return v, err
					})
					require.NoError(t, err)
					leader <- v
				}()
				synctest.Wait()
				time.Sleep(time.Second - time.Millisecond)
				go func() { joiner <- b.get(7) }()
				synctest.Wait()
				time.Sleep(100 * time.Millisecond) // it has no answer from the tier
				close(goOn)
				<-leader
				require.EqualValues(t, 2, <-joiner)
				f.server.Down(false)
			})
		})
	}
}
