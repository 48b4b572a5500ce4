package histories_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/naming"
)

// Writers of every fourth row store its value by Put. A lock orders them, as the
// transactions of one row do: without it, two Puts could come in another order than the
// commits.
func isPut(r int) bool { return r%4 == 3 }

func TestHistoryOfAMapHasNoAnswerOlderThanTheLastAnnouncement(t *testing.T) {
	h := newHistory(t, 2, core.Classes{"row": {
		TTL: 6 * time.Millisecond, StaleWhileRevalidate: 4 * time.Millisecond, StaleIfError: 20 * time.Millisecond, NegativeTTL: time.Millisecond,
		Jitter: 0.5, LoadTimeout: 2 * time.Millisecond, MaxLoadsAfterError: 2,
	}})
	m, err := core.NewMap(h.cache, core.MapOptions[int, int64]{Class: "row", Prefix: "row"})
	require.NoError(t, err)

	load := func(ctx context.Context, r int) (int64, error) {
		s := loadscope.From(ctx)
		name := func() {
			s.AddTags([]string{naming.Tag(groupTag(r)), naming.Path(fmt.Sprint("/rows/", r))})
		}
		early := rand.IntN(2) == 0 // before the read of the database or after it
		if early {
			name()
		}
		pause(3)
		version := h.rows[r].version.Load()
		pause(3)
		if !early {
			name()
		}
		switch rand.IntN(200) {
		case 0:
			return 0, errHistory
		case 1:
			return 0, context.Canceled
		case 2:
			panic(errHistory)
		case 3:
			return 0, core.ErrNotFound
		case 4:
			s.SetNoStore()
		case 5, 6:
			s.SetTTL(time.Millisecond)
		}
		return version, nil
	}
	read := func(ctx context.Context, r int) (version int64, err error) {
		defer func() {
			if recover() != nil { // a disabled cache does not recover panics
				err = errHistory
			}
		}()
		return m.Get(ctx, r, load)
	}

	write := func(r int) string {
		key := fmt.Sprint("row:", r)
		if isPut(r) {
			h.rows[r].order.Lock()
			defer h.rows[r].order.Unlock()
		}
		switch n := rand.IntN(400); {
		case n == 0:
			return h.announce(r, core.All())
		case n == 1:
			return h.announce(r, core.Pattern("row:*"))
		case n < 80 && isPut(r):
			version := h.commit(r)
			if err := m.Put(context.Background(), r, version); err != nil {
				panic(err)
			}
			h.announced(r, version)
			return "Put"
		case n < 130:
			return h.announce(r, core.Key(key))
		case n < 180:
			return h.announce(r, core.Tag(key))
		case n < 240 && !isPut(r): // a value that was put carries no tags but its own
			return h.announce(r, core.Tag(groupTag(r)))
		case n < 300 && !isPut(r):
			return h.announce(r, core.Path(fmt.Sprint("/rows/", r)))
		case n < 360:
			return h.announce(r, core.Pattern(fmt.Sprintf("ro[v-x]:%d", r)))
		case n < 380:
			return h.announce(r, core.Tag("unrelated"), core.Key(key), core.Tag("unrelated too"))
		default:
			version := h.commit(r)
			if err := m.Invalidate(context.Background(), r); err != nil {
				panic(err)
			}
			h.announced(r, version)
			return "Map.Invalidate"
		}
	}

	// An operator disables and enables the cache again and again.
	stop := make(chan struct{})
	var operator sync.WaitGroup
	operator.Add(1)
	go func() {
		defer operator.Done()
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				h.cache.SetEnabled(false)
				time.Sleep(time.Duration(rand.IntN(int(500 * time.Microsecond))))
				h.cache.SetEnabled(true)
			}
		}
	}()
	defer operator.Wait()
	defer close(stop)
	h.run(t, read, write)
}
